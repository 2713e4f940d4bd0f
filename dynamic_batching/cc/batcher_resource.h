// SPDX-License-Identifier: Apache-2.0
//
// The TensorFlow side of the ledger: the resource, and the answers to the
// asynchronous kernels that wait in it.

#ifndef DYNAMIC_BATCHING_CC_BATCHER_RESOURCE_H_
#define DYNAMIC_BATCHING_CC_BATCHER_RESOURCE_H_

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "dynamic_batching/cc/batch_ledger.h"
#include "dynamic_batching/cc/rows.h"
#include "tensorflow/core/framework/cancellation.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/partial_tensor_shape.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/tensor.h"

namespace dynamic_batching {

// Types and shapes, with the rows as first dimension, of a list of tensors.
struct Specs {
  std::vector<tensorflow::DataType> types;
  std::vector<tensorflow::PartialTensorShape> shapes;

  // Whether all rows that fit have the same shapes.
  bool HasOneShape() const {
    for (const tensorflow::PartialTensorShape& shape : shapes) {
      for (int i = 1; i < shape.dims(); ++i) {
        if (shape.dim_size(i) < 0) return false;
      }
      if (shape.unknown_rank()) return false;
    }
    return true;
  }
};

class BatcherResource : public tensorflow::ResourceBase {
 public:
  BatcherResource(const LedgerOptions& options, Specs inputs, Specs outputs)
      : ledger(std::make_shared<BatchLedger>(options)),
        inputs(std::move(inputs)),
        outputs(std::move(outputs)),
        inputs_have_one_shape(this->inputs.HasOneShape()) {}
  ~BatcherResource() override { ledger->Close(); }

  std::string DebugString() const override {
    return absl::StrCat("Batcher with ", ledger->Statistics().waiting_calls,
                        " waiting inputs.");
  }

  const std::shared_ptr<BatchLedger> ledger;
  const Specs inputs;
  const Specs outputs;
  const bool inputs_have_one_shape;
};

// One run of an asynchronous kernel. Whoever holds the right to answer it (see
// batch_ledger.h) calls Finish(), once; the context is gone afterwards.
class PendingOp {
 public:
  PendingOp(tensorflow::OpKernelContext* context,
            tensorflow::AsyncOpKernel::DoneCallback done)
      : context_(context), done_(std::move(done)) {}

  tensorflow::OpKernelContext* context() { return context_; }

  // `cancel` returns whether it took over the right to answer. False if the
  // step is already cancelled; then `cancel` will not be called.
  template <typename CancelFn>
  bool WatchCancellation(std::string message, CancelFn cancel) {
    manager_ = context_->cancellation_manager();
    if (manager_ == nullptr) return true;
    token_ = manager_->get_cancellation_token();
    const bool watching = manager_->RegisterCallback(
        token_,
        [this, message = std::move(message), cancel = std::move(cancel)] {
          if (!cancel()) return;
          // A callback must not deregister itself.
          manager_ = nullptr;
          Finish(absl::CancelledError(message));
        });
    if (!watching) manager_ = nullptr;
    return watching;
  }

  void Finish(const absl::Status& status) {
    if (manager_ != nullptr) manager_->DeregisterCallback(token_);
    if (!status.ok()) context_->SetStatus(status);
    // The answer may release the last reference to this object.
    const auto done = std::move(done_);
    done();
  }

 private:
  tensorflow::OpKernelContext* const context_;
  tensorflow::AsyncOpKernel::DoneCallback done_;
  tensorflow::CancellationManager* manager_ = nullptr;
  tensorflow::CancellationToken token_ = 0;
};

inline absl::Status ClosedError() {
  return absl::CancelledError("Batcher is closed");
}

class ComputeCall : public Call {
 public:
  ComputeCall(int64_t rows, std::string signature,
              std::vector<tensorflow::Tensor> inputs,
              tensorflow::OpKernelContext* context,
              tensorflow::AsyncOpKernel::DoneCallback done)
      : Call(rows, std::move(signature)),
        inputs(std::move(inputs)),
        op(context, std::move(done)) {}

  void OnClosed() override { op.Finish(ClosedError()); }

  // Belongs to the consumer once the call is in a batch.
  std::vector<tensorflow::Tensor> inputs;
  PendingOp op;
};

// Answers `call` with its rows of `outputs`, which start at `offset`.
inline void FinishWithRows(ComputeCall* call, int64_t offset,
                           const tensorflow::OpInputList& outputs) {
  tensorflow::OpKernelContext* context = call->op.context();
  for (int i = 0; i < outputs.size(); ++i) {
    const tensorflow::Tensor& output = outputs[i];
    if (output.dim_size(0) == call->rows && !IsBorrowed(output)) {
      context->set_output(i, output);
      continue;
    }
    tensorflow::Tensor* rows = nullptr;
    const absl::Status status = context->allocate_output(
        i, ShapeWithRows(output.shape(), call->rows), &rows);
    if (!status.ok()) return call->op.Finish(status);
    CopyRows(output, offset, rows, 0, call->rows);
  }
  call->op.Finish(absl::OkStatus());
}

// Answers all calls of a batch that was taken from the ledger.
inline void FinishWithRows(const Batch& batch,
                           const tensorflow::OpInputList& outputs) {
  for (const Batch::Entry& entry : batch.entries) {
    if (entry.call == nullptr) continue;
    FinishWithRows(static_cast<ComputeCall*>(entry.call.get()), entry.offset,
                   outputs);
  }
}

// Answers all calls of a batch that was taken from the ledger with an error.
inline void FinishWithError(const Batch& batch, const absl::Status& error) {
  for (const Batch::Entry& entry : batch.entries) {
    if (entry.call == nullptr) continue;
    static_cast<ComputeCall*>(entry.call.get())->op.Finish(error);
  }
}

class InputsConsumer : public Consumer {
 public:
  InputsConsumer(std::shared_ptr<BatchLedger> ledger,
                 tensorflow::OpKernelContext* context,
                 tensorflow::AsyncOpKernel::DoneCallback done)
      : op(context, std::move(done)), ledger_(std::move(ledger)) {}

  void OnClosed() override { op.Finish(ClosedError()); }

  void OnBatch(Batch batch) override {
    const absl::Status status = Gather(batch);
    if (!status.ok()) {
      // Nobody will ever learn the id of this batch.
      Batch failed;
      ledger_->Finish(batch.id, std::nullopt, &failed);
      FinishWithError(failed, status);
    }
    op.Finish(status);
  }

  PendingOp op;

 private:
  absl::Status Gather(const Batch& batch) {
    tensorflow::OpKernelContext* context = op.context();
    const int size = context->num_outputs() - 1;
    tensorflow::Tensor* id = nullptr;
    TF_RETURN_IF_ERROR(context->allocate_output(size, {}, &id));
    id->scalar<int64_t>()() = batch.id;

    const bool alone =
        batch.entries.size() == 1 && batch.padded_rows == batch.rows;
    auto* first = static_cast<ComputeCall*>(batch.entries[0].call.get());
    for (int i = 0; i < size; ++i) {
      const tensorflow::Tensor& input = first->inputs[i];
      if (alone && !IsBorrowed(input)) {
        context->set_output(i, input);
        continue;
      }
      // Pinned where there is a GPU, which copies from such memory only at full
      // speed and without the CPU.
      tensorflow::AllocatorAttributes attributes =
          context->output_alloc_attr(i);
      attributes.set_gpu_compatible(true);
      tensorflow::Tensor* rows = nullptr;
      TF_RETURN_IF_ERROR(context->allocate_output(
          i, ShapeWithRows(input.shape(), batch.padded_rows), &rows,
          attributes));
      for (const Batch::Entry& entry : batch.entries) {
        auto* call = static_cast<ComputeCall*>(entry.call.get());
        CopyRows(call->inputs[i], 0, rows, entry.offset, call->rows);
      }
      for (int64_t row = batch.rows; row < batch.padded_rows; ++row) {
        CopyRows(*rows, batch.rows - 1, rows, row, 1);
      }
    }
    for (const Batch::Entry& entry : batch.entries) {
      // The callers may wait for long; their inputs need not.
      static_cast<ComputeCall*>(entry.call.get())->inputs.clear();
    }
    return absl::OkStatus();
  }

  const std::shared_ptr<BatchLedger> ledger_;
};

}  // namespace dynamic_batching

#endif  // DYNAMIC_BATCHING_CC_BATCHER_RESOURCE_H_
