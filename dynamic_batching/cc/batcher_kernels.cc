// SPDX-License-Identifier: Apache-2.0

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
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

constexpr char kComputeCancelled[] = "Compute was cancelled";
constexpr char kGetInputsCancelled[] = "GetInputs operation was cancelled";

absl::Status LookupBatcher(OpKernelContext* context, BatcherPtr* batcher) {
  const tensorflow::ResourceHandle* handle;
  TF_RETURN_IF_ERROR(FindScalar(context, "handle", &handle));
  return LookupResource(context, *handle, batcher);
}

absl::Status ReadSpecs(OpKernelConstruction* context, const std::string& name,
                       Specs* specs) {
  TF_RETURN_IF_ERROR(context->GetAttr(name + "_types", &specs->types));
  TF_RETURN_IF_ERROR(context->GetAttr(name + "_shapes", &specs->shapes));
  return CheckSpecs(name.c_str(), *specs);
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
    OP_REQUIRES_OK(context, context->GetAttr("allowed_batch_sizes",
                                             &options_.allowed_rows));
    OP_REQUIRES_OK(context, CheckOptions(options_));
    OP_REQUIRES_OK(context, ReadSpecs(context, "input", &inputs_));
    OP_REQUIRES_OK(context, ReadSpecs(context, "output", &outputs_));
  }

  void Compute(OpKernelContext* context) override {
    tensorflow::Tensor* handle;
    OP_REQUIRES_OK(context, context->allocate_output(0, {}, &handle));
    handle->scalar<tensorflow::ResourceHandle>()() =
        tensorflow::ResourceHandle::MakeRefCountingHandle(
            new BatcherResource(options_, inputs_, outputs_),
            context->device()->name());
  }

 private:
  LedgerOptions options_;
  Specs inputs_;
  Specs outputs_;
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
    int64_t rows;
    OP_REQUIRES_OK_ASYNC(context, Check(*batcher, inputs, &rows), done);

    const std::shared_ptr<BatchLedger> ledger = batcher->ledger;
    const auto call = std::make_shared<ComputeCall>(
        rows, batcher->inputs_have_one_shape ? "" : Signature(inputs),
        std::vector<tensorflow::Tensor>(inputs.begin(), inputs.end()), context,
        std::move(done));
    if (!call->op.WatchCancellation(kComputeCancelled, [ledger, call] {
          return ledger->Cancel(call);
        })) {
      return call->op.Finish(absl::CancelledError(kComputeCancelled));
    }
    std::string other;
    const Admission admission = ledger->Enqueue(call, &other);
    if (admission == Admission::kAccepted) return;
    call->op.Finish(
        admission == Admission::kMismatch
            ? absl::InvalidArgumentError(absl::StrCat(
                  "Shapes of inputs much be equal. Shapes observed: ", other,
                  " and ", call->signature))
            : AdmissionError(admission, kComputeCancelled));
  }

 private:
  absl::Status Check(const BatcherResource& batcher, const OpInputList& inputs,
                     int64_t* rows) const {
    const absl::Span<const tensorflow::DataType> types = input_types();
    TF_RETURN_IF_ERROR(CheckTypes("Input", batcher.inputs, types.subspan(1)));
    TF_RETURN_IF_ERROR(CheckTypes("Output", batcher.outputs, output_types()));
    TF_RETURN_IF_ERROR(CheckRows("Input", batcher.inputs, inputs, rows));
    return CheckCallSize(*rows, batcher.ledger->options);
  }
};

class BatcherGetInputsOp : public AsyncOpKernel {
 public:
  using AsyncOpKernel::AsyncOpKernel;

  void ComputeAsync(OpKernelContext* context, DoneCallback done) override {
    BatcherPtr batcher;
    OP_REQUIRES_OK_ASYNC(context, LookupBatcher(context, &batcher), done);
    const absl::Span<const tensorflow::DataType> types = output_types();
    OP_REQUIRES_OK_ASYNC(context,
                         CheckTypes("Input", batcher->inputs,
                                    types.first(types.size() - 1)),
                         done);
    const std::shared_ptr<BatchLedger> ledger = batcher->ledger;
    const auto consumer =
        std::make_shared<InputsConsumer>(ledger, context, std::move(done));
    if (!consumer->op.WatchCancellation(
            kGetInputsCancelled,
            [ledger, consumer] { return ledger->Cancel(consumer); })) {
      return consumer->op.Finish(absl::CancelledError(kGetInputsCancelled));
    }
    const Admission admission = ledger->AwaitBatch(consumer);
    if (admission != Admission::kAccepted) {
      consumer->op.Finish(AdmissionError(admission, kGetInputsCancelled));
    }
  }
};

// Takes a batch that is being served from the ledger; `padded_rows` as there.
absl::Status FinishBatch(BatchLedger* ledger, int64_t id,
                         std::optional<int64_t> padded_rows, Batch* batch) {
  switch (ledger->Finish(id, padded_rows, batch)) {
    case Finishing::kFinished:
      return absl::OkStatus();
    case Finishing::kClosed:
      return ClosedError();
    case Finishing::kUnknown:
      return absl::InvalidArgumentError(
          absl::StrCat("Invalid computation id. Id: ", id));
    case Finishing::kOtherRows:
      return absl::InvalidArgumentError(absl::StrCat(
          "Output shape must have the same batch dimension as the input batch "
          "size. Expected: ",
          batch->padded_rows, " Observed: ", *padded_rows));
  }
}

class BatcherSetOutputsOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* context) override {
    BatcherPtr batcher;
    OP_REQUIRES_OK(context, LookupBatcher(context, &batcher));
    OpInputList outputs;
    OP_REQUIRES_OK(context, context->input_list("output_list", &outputs));
    int64_t id;
    OP_REQUIRES_OK(context, ReadScalar(context, "computation_id", &id));
    const absl::Span<const tensorflow::DataType> types = input_types();
    OP_REQUIRES_OK(context, CheckTypes("Output", batcher->outputs,
                                       types.subspan(1, outputs.size())));
    int64_t rows;
    OP_REQUIRES_OK(context,
                   CheckRows("Output", batcher->outputs, outputs, &rows));
    Batch batch;
    OP_REQUIRES_OK(context,
                   FinishBatch(batcher->ledger.get(), id, rows, &batch));
    FinishWithRows(batch, outputs);
  }
};

class BatcherSetErrorOp : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* context) override {
    BatcherPtr batcher;
    OP_REQUIRES_OK(context, LookupBatcher(context, &batcher));
    int64_t id;
    OP_REQUIRES_OK(context, ReadScalar(context, "computation_id", &id));
    int32_t code;
    OP_REQUIRES_OK(context, ReadScalar(context, "error_code", &code));
    tensorflow::tstring message;
    OP_REQUIRES_OK(context, ReadScalar(context, "error_message", &message));
    OP_REQUIRES(context, code > 0 && code <= 16,
                absl::InvalidArgumentError(absl::StrCat(
                    "error_code must be in 1 ... 16 but was ", code)));
    Batch batch;
    OP_REQUIRES_OK(context, FinishBatch(batcher->ledger.get(), id, std::nullopt,
                                        &batch));
    FinishWithError(
        batch, absl::Status(static_cast<absl::StatusCode>(code), message));
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
