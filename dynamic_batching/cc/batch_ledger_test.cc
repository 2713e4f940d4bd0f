// SPDX-License-Identifier: Apache-2.0
//
// Stress test of the ledger, meant to run under the sanitizers:
//   batch_ledger_test [producers [consumers [calls]]]
//
// Producers make calls of 1 to 4 rows and cancel some of them, consumers take
// batches, answer most, abandon none and are sometimes cancelled, while the
// ledger is closed at a random moment of some rounds. Every call must get
// exactly one answer, and the right one.

#include "dynamic_batching/cc/batch_ledger.h"

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace dynamic_batching {
namespace {

#define CHECK_THAT(condition)                                              \
  do {                                                                     \
    if (!(condition)) {                                                    \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                        \
    }                                                                      \
  } while (0)

// One answer, given once and awaited by one thread.
template <typename T>
class Answer {
 public:
  void Set(T value) {
    std::lock_guard<std::mutex> lock(mutex_);
    CHECK_THAT(!set_);
    value_ = std::move(value);
    set_ = true;
    changed_.notify_all();
  }

  T Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return set_; });
    return std::move(value_);
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool set_ = false;
  T value_;
};

struct Result {
  enum Kind { kServed, kClosed, kCancelled } kind = kServed;
  std::vector<int64_t> rows;
};

class TestCall : public Call {
 public:
  TestCall(int64_t rows, int64_t value) : Call(rows, "int64[]") {
    for (int64_t i = 0; i < rows; ++i) inputs.push_back(value + i);
  }
  void OnClosed() override { answer.Set({Result::kClosed, {}}); }

  std::vector<int64_t> inputs;
  Answer<Result> answer;
};

struct Delivery {
  Result::Kind kind = Result::kServed;
  Batch batch;
};

class TestConsumer : public Consumer {
 public:
  void OnBatch(Batch batch) override {
    answer.Set({Result::kServed, std::move(batch)});
  }
  void OnClosed() override { answer.Set({Result::kClosed, {}}); }

  Answer<Delivery> answer;
};

struct Tally {
  std::atomic<int64_t> served{0};
  std::atomic<int64_t> closed{0};
  std::atomic<int64_t> cancelled{0};
  std::atomic<int64_t> served_rows{0};
};

int64_t Compute(int64_t x) { return 3 * x + 1; }

void Produce(BatchLedger* ledger, int producer, int calls, Tally* tally) {
  std::minstd_rand random(producer + 1);
  for (int i = 0; i < calls; ++i) {
    const int64_t value = (int64_t{producer} << 32) + 8 * i;
    const auto call = std::make_shared<TestCall>(1 + random() % 4, value);
    // The canceller races with the enqueueing, the batch and the answer.
    std::thread canceller;
    if (random() % 32 == 0) {
      canceller = std::thread([ledger, call] {
        if (ledger->Cancel(call)) call->answer.Set({Result::kCancelled, {}});
      });
    }
    std::string other;
    const Admission admission = ledger->Enqueue(call, &other);
    if (admission == Admission::kAccepted) {
      const Result result = call->answer.Wait();
      if (result.kind == Result::kServed) {
        CHECK_THAT(result.rows.size() == static_cast<size_t>(call->rows));
        for (int64_t j = 0; j < call->rows; ++j) {
          CHECK_THAT(result.rows[j] == Compute(value + j));
        }
        tally->served += 1;
        tally->served_rows += call->rows;
      } else if (result.kind == Result::kClosed) {
        tally->closed += 1;
      } else {
        CHECK_THAT(canceller.joinable());
        tally->cancelled += 1;
      }
    } else if (admission == Admission::kClosed) {
      tally->closed += 1;
    } else {
      CHECK_THAT(admission == Admission::kCancelled);
      tally->cancelled += 1;
    }
    if (canceller.joinable()) canceller.join();
  }
}

void CheckPadding(const std::vector<int64_t>& allowed, const Batch& batch) {
  CHECK_THAT(batch.padded_rows >= batch.rows);
  if (allowed.empty()) CHECK_THAT(batch.padded_rows == batch.rows);
  bool is_allowed = allowed.empty();
  for (const int64_t size : allowed) {
    is_allowed |= size == batch.padded_rows;
    CHECK_THAT(size < batch.rows || size >= batch.padded_rows);
  }
  CHECK_THAT(is_allowed);
}

void Serve(BatchLedger* ledger, const Batch& batch) {
  std::vector<int64_t> rows;
  for (const Batch::Entry& entry : batch.entries) {
    CHECK_THAT(entry.offset == static_cast<int64_t>(rows.size()));
    for (int64_t x : static_cast<TestCall*>(entry.call.get())->inputs) {
      rows.push_back(Compute(x));
    }
  }
  CHECK_THAT(batch.rows == static_cast<int64_t>(rows.size()));
  CHECK_THAT(batch.rows <= ledger->options.maximum_rows);
  CheckPadding(ledger->options.allowed_rows, batch);
  Batch finished;
  Finishing finishing =
      ledger->Finish(batch.id, batch.padded_rows + 1, &finished);
  if (finishing != Finishing::kClosed) {
    CHECK_THAT(finishing == Finishing::kOtherRows);
    CHECK_THAT(finished.padded_rows == batch.padded_rows &&
               finished.entries.empty());
    finishing = ledger->Finish(batch.id, batch.padded_rows, &finished);
  }
  if (finishing == Finishing::kClosed) {
    CHECK_THAT(ledger->Statistics().closed);
    return;
  }
  CHECK_THAT(finishing == Finishing::kFinished);
  Batch none;
  finishing = ledger->Finish(batch.id, std::nullopt, &none);
  CHECK_THAT(finishing == Finishing::kUnknown ||
             finishing == Finishing::kClosed);
  for (const Batch::Entry& entry : finished.entries) {
    if (entry.call == nullptr) continue;
    const auto begin = rows.begin() + entry.offset;
    static_cast<TestCall*>(entry.call.get())
        ->answer.Set({Result::kServed, {begin, begin + entry.call->rows}});
  }
}

void Consume(BatchLedger* ledger, int seed) {
  std::minstd_rand random(seed + 1);
  while (true) {
    const auto consumer = std::make_shared<TestConsumer>();
    std::thread canceller;
    if (random() % 32 == 0) {
      canceller = std::thread([ledger, consumer] {
        if (ledger->Cancel(consumer)) {
          consumer->answer.Set({Result::kCancelled, {}});
        }
      });
    }
    const Admission admission = ledger->AwaitBatch(consumer);
    Delivery delivery;
    if (admission == Admission::kAccepted) {
      delivery = consumer->answer.Wait();
    } else {
      delivery.kind = admission == Admission::kClosed ? Result::kClosed
                                                      : Result::kCancelled;
    }
    if (canceller.joinable()) canceller.join();
    if (delivery.kind == Result::kClosed) return;
    if (delivery.kind == Result::kServed) Serve(ledger, delivery.batch);
  }
}

void RunRound(const LedgerOptions& options, int producers, int consumers,
              int calls, bool close_early) {
  const auto ledger = std::make_shared<BatchLedger>(options);
  Tally tally;
  std::vector<std::thread> producer_threads;
  std::vector<std::thread> consumer_threads;
  for (int i = 0; i < consumers; ++i) {
    consumer_threads.emplace_back(Consume, ledger.get(), i);
  }
  for (int i = 0; i < producers; ++i) {
    producer_threads.emplace_back(Produce, ledger.get(), i, calls, &tally);
  }
  if (close_early) {
    std::minstd_rand random(calls);
    const int64_t target = random() % (int64_t{producers} * calls / 2);
    while (ledger->Statistics().calls < target) std::this_thread::yield();
    ledger->Close();
  }
  for (std::thread& thread : producer_threads) thread.join();
  ledger->Close();
  for (std::thread& thread : consumer_threads) thread.join();

  const LedgerStatistics statistics = ledger->Statistics();
  int64_t histogram_batches = 0, histogram_rows = 0;
  for (const auto& [rows, batches] : statistics.batch_sizes) {
    histogram_batches += batches;
    histogram_rows += rows * batches;
  }
  CHECK_THAT(tally.served + tally.closed + tally.cancelled ==
             int64_t{producers} * calls);
  CHECK_THAT(close_early || tally.closed == 0);
  CHECK_THAT(statistics.waiting_calls == 0 && statistics.waiting_rows == 0);
  CHECK_THAT(statistics.batches == histogram_batches);
  CHECK_THAT(statistics.rows == histogram_rows);
  CHECK_THAT(statistics.rows >= tally.served_rows);
  CHECK_THAT(statistics.calls >= tally.served);
  std::printf(
      "minimum %3d maximum %4d timeout %3d ms%s%s: %lld served, %lld cancelled, "
      "%lld closed, %.1f rows a batch\n",
      static_cast<int>(options.minimum_rows),
      static_cast<int>(options.maximum_rows),
      static_cast<int>(options.timeout_ms),
      options.allowed_rows.empty() ? "" : ", padded",
      close_early ? ", closed" : "",
      static_cast<long long>(tally.served),
      static_cast<long long>(tally.cancelled),
      static_cast<long long>(tally.closed),
      static_cast<double>(statistics.rows) / statistics.batches);
  std::fflush(stdout);
}

}  // namespace
}  // namespace dynamic_batching

int main(int argc, char** argv) {
  const int producers = argc > 1 ? std::atoi(argv[1]) : 64;
  const int consumers = argc > 2 ? std::atoi(argv[2]) : 16;
  const int calls = argc > 3 ? std::atoi(argv[3]) : 1000;
  using dynamic_batching::RunRound;
  RunRound({1, 1024, 100, {}}, producers, consumers, calls, false);
  RunRound({1, 4, 0, {}}, producers, consumers, calls / 4, false);
  RunRound({16, 24, 1, {2, 16, 32}}, producers, consumers, calls / 4, false);
  RunRound({8, 1024, -1, {}}, producers, consumers, calls, true);
  RunRound({1, 16, 100, {1, 4, 16}}, producers, consumers, calls, true);
  RunRound({4096, 4096, 1, {}}, producers, consumers, calls / 50, false);
  std::printf("ok\n");
}
