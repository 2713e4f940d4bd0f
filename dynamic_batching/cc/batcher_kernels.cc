// SPDX-License-Identifier: Apache-2.0

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "dynamic_batching/cc/batch_ledger.h"
#include "dynamic_batching/cc/batcher_resource.h"
#include "dynamic_batching/cc/checks.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/types.h"

namespace dynamic_batching {
namespace {

using tensorflow::DEVICE_CPU;
using tensorflow::OpInputList;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::AsyncOpKernel;

using BatcherPtr = tensorflow::core::RefCountPtr<BatcherResource>;

absl::Status LookupBatcher(OpKernelContext* context, BatcherPtr* batcher) {
  return LookupResource(context, tensorflow::HandleFromInput(context, 0),
                        batcher);
}

class BatcherOp : public OpKernel {
 public:
  explicit BatcherOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("minimum_batch_size",
                                             &options_.minimum_rows));
    OP_REQUIRES_OK(context, context->GetAttr("maximum_batch_size",
                                             &options_.maximum_rows));
    OP_REQUIRES_OK(context,
                   context->GetAttr("timeout_ms", &options_.timeout_ms));
    OP_REQUIRES_OK(context, CheckOptions(options_));
    OP_REQUIRES_OK(context, context->GetAttr("input_types", &specs_.types));
    OP_REQUIRES_OK(context, context->GetAttr("input_shapes", &specs_.shapes));
    OP_REQUIRES(context, specs_.types.size() == specs_.shapes.size(),
                absl::InvalidArgumentError(absl::StrCat(
                    "input_types and input_shapes must have the same length "
                    "but have ",
                    specs_.types.size(), " and ", specs_.shapes.size())));
    OP_REQUIRES_OK(context, context->GetAttr("shared_name", &shared_name_));
  }

  void Compute(OpKernelContext* context) override {
    tensorflow::Tensor handle(tensorflow::DT_RESOURCE, {});
    if (shared_name_.empty()) {
      handle.scalar<tensorflow::ResourceHandle>()() =
          tensorflow::ResourceHandle::MakeRefCountingHandle(
              new BatcherResource(options_, specs_),
              context->device()->name());
    } else {
      tensorflow::ContainerInfo info;
      OP_REQUIRES_OK(context, info.Init(context->resource_manager(), def()));
      BatcherResource* resource = nullptr;
      OP_REQUIRES_OK(
          context, info.resource_manager()->LookupOrCreate<BatcherResource>(
                       info.container(), info.name(), &resource,
                       [this](BatcherResource** created) {
                         *created = new BatcherResource(options_, specs_);
                         return absl::OkStatus();
                       }));
      const BatcherPtr batcher(resource);
      OP_REQUIRES(context, batcher->ledger->options == options_,
                  absl::InvalidArgumentError(absl::StrCat(
                      "Batcher with shared_name='", shared_name_,
                      "' exists with other options")));
      handle.scalar<tensorflow::ResourceHandle>()() =
          tensorflow::MakeResourceHandle<BatcherResource>(
              context, info.container(), info.name());
    }
    context->set_output(0, handle);
  }

 private:
  LedgerOptions options_;
  InputSpecs specs_;
  std::string shared_name_;
};

absl::Status AdmissionError(Admission admission, const char* cancelled) {
  return admission == Admission::kClosed ? ClosedError()
                                         : absl::CancelledError(cancelled);
}

class BatcherComputeOp : public AsyncOpKernel {
 public:
  using AsyncOpKernel::AsyncOpKernel;

  void ComputeAsync(OpKernelContext* context, DoneCallback done) override {
    BatcherPtr batcher;
    OP_REQUIRES_OK_ASYNC(context, LookupBatcher(context, &batcher), done);
    OpInputList inputs;
    OP_REQUIRES_OK_ASYNC(context, context->input_list("input_list", &inputs),
                         done);
    std::string signature;
    OP_REQUIRES_OK_ASYNC(context, CheckInputs(*batcher, inputs, &signature),
                         done);

    const std::shared_ptr<BatchLedger> ledger = batcher->ledger;
    const auto call = std::make_shared<ComputeCall>(
        inputs[0].dim_size(0), std::move(signature),
        std::vector<tensorflow::Tensor>(inputs.begin(), inputs.end()), context,
        std::move(done));
    constexpr char kCancelled[] = "Compute was cancelled";
    if (!call->op.WatchCancellation(kCancelled, [ledger, call] {
          return ledger->Cancel(call);
        })) {
      return call->op.Finish(absl::CancelledError(kCancelled));
    }
    std::string other;
    const Admission admission = ledger->Enqueue(call, &other);
    if (admission == Admission::kAccepted) return;
    call->op.Finish(
        admission == Admission::kMismatch
            ? absl::InvalidArgumentError(absl::StrCat(
                  "Shapes of inputs much be equal. Shapes observed: ", other,
                  " and ", call->signature))
            : AdmissionError(admission, kCancelled));
  }
};

class BatcherGetInputsOp : public AsyncOpKernel {
 public:
  using AsyncOpKernel::AsyncOpKernel;

  void ComputeAsync(OpKernelContext* context, DoneCallback done) override {
    BatcherPtr batcher;
    OP_REQUIRES_OK_ASYNC(context, LookupBatcher(context, &batcher), done);
    const std::shared_ptr<BatchLedger> ledger = batcher->ledger;
    const auto consumer =
        std::make_shared<InputsConsumer>(ledger, context, std::move(done));
    constexpr char kCancelled[] = "GetInputs operation was cancelled";
    if (!consumer->op.WatchCancellation(kCancelled, [ledger, consumer] {
          return ledger->Cancel(consumer);
        })) {
      return consumer->op.Finish(absl::CancelledError(kCancelled));
    }
    const Admission admission = ledger->AwaitBatch(consumer);
    if (admission != Admission::kAccepted) {
      consumer->op.Finish(AdmissionError(admission, kCancelled));
    }
  }
};

absl::Status InvalidId(int64_t id) {
  return absl::InvalidArgumentError(
      absl::StrCat("Invalid computation id. Id: ", id));
}

class BatcherSetOutputsOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* context) override {
    BatcherPtr batcher;
    OP_REQUIRES_OK(context, LookupBatcher(context, &batcher));
    BatchLedger* ledger = batcher->ledger.get();
    OpInputList list;
    OP_REQUIRES_OK(context, context->input_list("output_list", &list));
    const tensorflow::Tensor* id_tensor;
    OP_REQUIRES_OK(context, context->input("computation_id", &id_tensor));
    const int64_t id = id_tensor->scalar<int64_t>()();

    const std::vector<tensorflow::Tensor> outputs(list.begin(), list.end());
    const std::optional<int64_t> rows = ledger->ServingRows(id);
    OP_REQUIRES(context, !ledger->closed(), ClosedError());
    OP_REQUIRES(context, rows.has_value(), InvalidId(id));
    OP_REQUIRES_OK(context, CheckOutputs(outputs, *rows));
    std::optional<Batch> batch = ledger->Finish(id);
    // Somebody else may have answered the batch in the meantime.
    OP_REQUIRES(context, batch.has_value() || !ledger->closed(), ClosedError());
    OP_REQUIRES(context, batch.has_value(), InvalidId(id));
    for (const Batch::Entry& entry : batch->entries) {
      if (entry.call == nullptr) continue;
      FinishWithRows(static_cast<ComputeCall*>(entry.call.get()), entry.offset,
                     outputs);
    }
  }
};

class BatcherSetErrorOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* context) override {
    BatcherPtr batcher;
    OP_REQUIRES_OK(context, LookupBatcher(context, &batcher));
    const int64_t id = context->input(1).scalar<int64_t>()();
    const int32_t code = context->input(2).scalar<int32_t>()();
    const std::string message =
        context->input(3).scalar<tensorflow::tstring>()();
    OP_REQUIRES(context, code > 0 && code <= 16,
                absl::InvalidArgumentError(absl::StrCat(
                    "error_code must be in 1 ... 16 but was ", code)));
    std::optional<Batch> batch = batcher->ledger->Finish(id);
    OP_REQUIRES(context, batch.has_value() || !batcher->ledger->closed(),
                ClosedError());
    OP_REQUIRES(context, batch.has_value(), InvalidId(id));
    const absl::Status status(static_cast<absl::StatusCode>(code), message);
    for (const Batch::Entry& entry : batch->entries) {
      if (entry.call == nullptr) continue;
      static_cast<ComputeCall*>(entry.call.get())->op.Finish(status);
    }
  }
};

class BatcherCloseOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* context) override {
    BatcherPtr batcher;
    OP_REQUIRES_OK(context, LookupBatcher(context, &batcher));
    batcher->ledger->Close();
  }
};

class BatcherStatisticsOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* context) override {
    BatcherPtr batcher;
    OP_REQUIRES_OK(context, LookupBatcher(context, &batcher));
    const LedgerStatistics statistics = batcher->ledger->Statistics();
    tensorflow::Tensor* tensor;
    OP_REQUIRES_OK(context, context->allocate_output(0, {}, &tensor));
    tensor->scalar<bool>()() = statistics.closed;
    OP_REQUIRES_OK(context, context->allocate_output(1, {5}, &tensor));
    const int64_t counters[] = {statistics.waiting_calls,
                                statistics.waiting_rows, statistics.batches,
                                statistics.calls, statistics.rows};
    std::copy(std::begin(counters), std::end(counters),
              tensor->flat<int64_t>().data());
    OP_REQUIRES_OK(context, context->allocate_output(2, {}, &tensor));
    tensor->scalar<double>()() =
        statistics.calls == 0 ? 0 : statistics.total_wait_ms / statistics.calls;
    const int64_t sizes = statistics.batch_sizes.size();
    OP_REQUIRES_OK(context, context->allocate_output(3, {sizes, 2}, &tensor));
    int64_t* element = tensor->flat<int64_t>().data();
    for (const auto& [rows, batches] : statistics.batch_sizes) {
      *element++ = rows;
      *element++ = batches;
    }
  }
};

#define REGISTER_CPU_KERNEL(NAME) \
  REGISTER_KERNEL_BUILDER(Name(#NAME).Device(DEVICE_CPU), NAME##Op)

REGISTER_CPU_KERNEL(Batcher);
REGISTER_CPU_KERNEL(BatcherCompute);
REGISTER_CPU_KERNEL(BatcherGetInputs);
REGISTER_CPU_KERNEL(BatcherSetOutputs);
REGISTER_CPU_KERNEL(BatcherSetError);
REGISTER_CPU_KERNEL(BatcherClose);
REGISTER_CPU_KERNEL(BatcherStatistics);

#undef REGISTER_CPU_KERNEL

}  // namespace
}  // namespace dynamic_batching

extern "C" int64_t dynamic_batching_live_batchers() {
  return dynamic_batching::BatcherResource::live;
}
