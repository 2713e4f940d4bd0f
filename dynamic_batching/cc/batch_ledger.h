// SPDX-License-Identifier: Apache-2.0
//
// The bookkeeping of the dynamic batcher, free of TensorFlow.
//
// Callers bring calls of one or more rows, consumers take batches. The ledger
// decides which calls form a batch and when, and guarantees that every call
// and every consumer it accepted is answered exactly once: with a batch (or
// the batch's results), by Close(), or by its owner's successful Cancel().
//
// A batch is ready as soon as `minimum_rows` rows wait, or once the oldest
// waiting call is `timeout_ms` old (0: at once; negative: never). It takes
// calls in order of arrival while they fit into `maximum_rows`. Calls are
// never split, so a batch may hold fewer than `minimum_rows` rows when the
// next call does not fit. Where `allowed_rows` names sizes, a batch is padded up
// to the next of them.
//
// The virtual functions of Call and Consumer are only ever invoked without the
// lock, so they may call back into the ledger.

#ifndef DYNAMIC_BATCHING_CC_BATCH_LEDGER_H_
#define DYNAMIC_BATCHING_CC_BATCH_LEDGER_H_

#ifdef __linux__
#include <pthread.h>
#endif

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

namespace dynamic_batching {

class BatchLedger;

struct LedgerOptions {
  int64_t minimum_rows = 1;
  int64_t maximum_rows = 1024;
  int64_t timeout_ms = 100;
  // Empty: any. Otherwise increasing, the last at least `maximum_rows`.
  std::vector<int64_t> allowed_rows = {};
};

struct LedgerStatistics {
  bool closed = false;
  int64_t waiting_calls = 0;
  int64_t waiting_rows = 0;
  int64_t batches = 0;
  int64_t calls = 0;
  int64_t rows = 0;
  double total_wait_ms = 0;                // Summed over `calls`.
  std::map<int64_t, int64_t> batch_sizes;  // Rows in a batch -> batches.
};

// One request of `rows` rows. Only calls of equal `signature` share the queue.
class Call {
 public:
  Call(int64_t rows, std::string signature)
      : rows(rows), signature(std::move(signature)) {}
  virtual ~Call() = default;

  // The ledger was closed before this call was answered.
  virtual void OnClosed() = 0;

  const int64_t rows;
  const std::string signature;

 private:
  friend class BatchLedger;
  enum class State { kNew, kWaiting, kServing, kDone };
  State state_ = State::kNew;
  std::chrono::steady_clock::time_point arrival_;
};

struct Batch {
  struct Entry {
    std::shared_ptr<Call> call;  // Null in a finished batch if cancelled.
    int64_t offset;              // First row of the call in the batch.
  };
  int64_t id = -1;
  int64_t rows = 0;
  int64_t padded_rows = 0;  // At least `rows`: what the consumer gets.
  std::vector<Entry> entries;
};

class Consumer {
 public:
  virtual ~Consumer() = default;
  virtual void OnBatch(Batch batch) = 0;
  virtual void OnClosed() = 0;

 private:
  friend class BatchLedger;
  bool cancelled_ = false;
};

enum class Admission { kAccepted, kClosed, kCancelled, kMismatch };

enum class Finishing { kFinished, kClosed, kUnknown, kOtherRows };

// Thread-safe. Must be owned by a shared_ptr, since the thread that watches the
// deadlines shares the ownership until Close(), which every owner must call.
class BatchLedger : public std::enable_shared_from_this<BatchLedger> {
 public:
  explicit BatchLedger(const LedgerOptions& options) : options(options) {}

  const LedgerOptions options;

  // Unless kAccepted, the call stays with the caller of this function. With
  // kMismatch, `other` is the signature of the calls that wait.
  Admission Enqueue(std::shared_ptr<Call> call, std::string* other) {
    Deliveries deliveries;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (closed_) return Admission::kClosed;
      if (call->state_ != Call::State::kNew) return Admission::kCancelled;
      if (!calls_.empty() && calls_.front()->signature != call->signature) {
        *other = calls_.front()->signature;
        return Admission::kMismatch;
      }
      call->state_ = Call::State::kWaiting;
      call->arrival_ = Clock::now();
      waiting_rows_ += call->rows;
      calls_.push_back(std::move(call));
      Match(&deliveries);
    }
    Deliver(&deliveries);
    return Admission::kAccepted;
  }

  // Answers the consumer with a batch now or later. Unless kAccepted, the
  // consumer stays with the caller of this function.
  Admission AwaitBatch(std::shared_ptr<Consumer> consumer) {
    Deliveries deliveries;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (closed_) return Admission::kClosed;
      if (consumer->cancelled_) return Admission::kCancelled;
      consumers_.push_back(std::move(consumer));
      Match(&deliveries);
    }
    Deliver(&deliveries);
    return Admission::kAccepted;
  }

  // True if the call was waiting or being served: it is the caller's to
  // answer now. A call not yet enqueued will be refused.
  bool Cancel(const std::shared_ptr<Call>& call) {
    std::lock_guard<std::mutex> lock(mutex_);
    const Call::State state = call->state_;
    call->state_ = Call::State::kDone;
    if (state == Call::State::kWaiting) {
      calls_.erase(std::find(calls_.begin(), calls_.end(), call));
      waiting_rows_ -= call->rows;
    }
    return state == Call::State::kWaiting || state == Call::State::kServing;
  }

  // True if the consumer was waiting: it is the caller's to answer now.
  bool Cancel(const std::shared_ptr<Consumer>& consumer) {
    std::lock_guard<std::mutex> lock(mutex_);
    consumer->cancelled_ = true;
    const auto found =
        std::find(consumers_.begin(), consumers_.end(), consumer);
    if (found == consumers_.end()) return false;
    consumers_.erase(found);
    return true;
  }

  // Hands over a batch that is being served: its calls are the caller's to
  // answer now. If it does not have the expected `padded_rows`, when there are
  // some, only its own number of them is told and it goes on being served.
  Finishing Finish(int64_t id, std::optional<int64_t> padded_rows,
                   Batch* batch) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (closed_) return Finishing::kClosed;
    const auto found = serving_.find(id);
    if (found == serving_.end()) return Finishing::kUnknown;
    batch->padded_rows = found->second.padded_rows;
    if (padded_rows.has_value() && *padded_rows != batch->padded_rows) {
      return Finishing::kOtherRows;
    }
    *batch = std::move(found->second);
    serving_.erase(found);
    for (Batch::Entry& entry : batch->entries) {
      if (!Claim(entry.call.get())) entry.call.reset();
    }
    return Finishing::kFinished;
  }

  // Answers everything that waits or is being served and refuses the rest.
  void Close() {
    std::vector<std::shared_ptr<Call>> calls;
    std::deque<std::shared_ptr<Consumer>> consumers;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (closed_) return;
      closed_ = true;
      calls.assign(calls_.begin(), calls_.end());
      calls_.clear();
      waiting_rows_ = 0;
      for (auto& item : serving_) {
        for (Batch::Entry& entry : item.second.entries) {
          if (entry.call->state_ == Call::State::kServing) {
            calls.push_back(std::move(entry.call));
          }
        }
      }
      serving_.clear();
      for (const auto& call : calls) Claim(call.get());
      consumers.swap(consumers_);
    }
    deadline_changed_.notify_all();
    for (const auto& call : calls) call->OnClosed();
    for (const auto& consumer : consumers) consumer->OnClosed();
  }

  LedgerStatistics Statistics() {
    std::lock_guard<std::mutex> lock(mutex_);
    LedgerStatistics statistics = statistics_;
    statistics.closed = closed_;
    statistics.waiting_calls = calls_.size();
    statistics.waiting_rows = waiting_rows_;
    return statistics;
  }

 private:
  using Clock = std::chrono::steady_clock;
  using Deliveries = std::vector<std::pair<std::shared_ptr<Consumer>, Batch>>;

  static bool Claim(Call* call) {
    const bool live = call->state_ != Call::State::kDone;
    call->state_ = Call::State::kDone;
    return live;
  }

  static void Deliver(Deliveries* deliveries) {
    for (auto& item : *deliveries) item.first->OnBatch(std::move(item.second));
  }

  Clock::time_point Deadline() const {
    return calls_.front()->arrival_ +
           std::chrono::milliseconds(options.timeout_ms);
  }

  bool Ready() const {
    if (calls_.empty()) return false;
    if (waiting_rows_ >= options.minimum_rows) return true;
    return options.timeout_ms >= 0 && Clock::now() >= Deadline();
  }

  void Match(Deliveries* deliveries) {
    while (!consumers_.empty() && Ready()) {
      deliveries->emplace_back(std::move(consumers_.front()), TakeBatch());
      consumers_.pop_front();
    }
    if (options.timeout_ms <= 0 || consumers_.empty() || calls_.empty()) return;
    if (!watching_) {
      watching_ = true;
      std::thread([self = shared_from_this()] { self->Watch(); }).detach();
    } else if (Deadline() < watched_deadline_) {
      deadline_changed_.notify_one();
    }
  }

  int64_t PaddedRows(int64_t rows) const {
    const std::vector<int64_t>& allowed = options.allowed_rows;
    const auto found = std::lower_bound(allowed.begin(), allowed.end(), rows);
    return found == allowed.end() ? rows : *found;
  }

  Batch TakeBatch() {
    const Clock::time_point now = Clock::now();
    Batch batch;
    batch.id = next_id_++;
    while (!calls_.empty() &&
           batch.rows + calls_.front()->rows <= options.maximum_rows) {
      std::shared_ptr<Call> call = std::move(calls_.front());
      calls_.pop_front();
      call->state_ = Call::State::kServing;
      statistics_.total_wait_ms +=
          std::chrono::duration<double, std::milli>(now - call->arrival_)
              .count();
      const int64_t offset = batch.rows;
      batch.rows += call->rows;
      batch.entries.push_back({std::move(call), offset});
    }
    batch.padded_rows = PaddedRows(batch.rows);
    waiting_rows_ -= batch.rows;
    statistics_.batches += 1;
    statistics_.calls += batch.entries.size();
    statistics_.rows += batch.rows;
    statistics_.batch_sizes[batch.rows] += 1;
    serving_.emplace(batch.id, batch);
    return batch;
  }

  // Serves batches whose deadline passes. Runs in a thread of its own, started
  // when a deadline first matters. Deadlines only grow, so while the thread
  // sleeps towards one of them nobody needs to wake it.
  void Watch() {
#ifdef __linux__
    pthread_setname_np(pthread_self(), "batch_deadline");
#endif
    std::unique_lock<std::mutex> lock(mutex_);
    while (!closed_) {
      if (consumers_.empty() || calls_.empty()) {
        watched_deadline_ = Clock::time_point::max();
        deadline_changed_.wait(lock);
      } else if (!Ready()) {
        watched_deadline_ = Deadline();
        deadline_changed_.wait_until(lock, watched_deadline_);
      } else {
        Deliveries deliveries;
        watched_deadline_ = Clock::time_point::min();
        Match(&deliveries);
        lock.unlock();
        Deliver(&deliveries);
        deliveries.clear();
        lock.lock();
      }
    }
  }

  std::mutex mutex_;
  std::condition_variable deadline_changed_;
  bool closed_ = false;
  bool watching_ = false;
  Clock::time_point watched_deadline_ = Clock::time_point::min();
  int64_t next_id_ = 0;
  int64_t waiting_rows_ = 0;
  std::deque<std::shared_ptr<Call>> calls_;
  std::deque<std::shared_ptr<Consumer>> consumers_;
  std::unordered_map<int64_t, Batch> serving_;
  LedgerStatistics statistics_;
};

}  // namespace dynamic_batching

#endif  // DYNAMIC_BATCHING_CC_BATCH_LEDGER_H_
