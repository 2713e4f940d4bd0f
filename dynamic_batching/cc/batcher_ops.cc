// SPDX-License-Identifier: Apache-2.0

#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace dynamic_batching {
namespace {

using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

absl::Status RequireScalar(InferenceContext* c, const char* input_name) {
  std::vector<ShapeHandle> shapes;
  TF_RETURN_IF_ERROR(c->input(input_name, &shapes));
  ShapeHandle unused;
  return c->WithRank(shapes.at(0), 0, &unused);
}

absl::Status HandleShape(InferenceContext* c) {
  return RequireScalar(c, "handle");
}

absl::Status HandleAndIdShape(InferenceContext* c) {
  TF_RETURN_IF_ERROR(RequireScalar(c, "handle"));
  return RequireScalar(c, "computation_id");
}

absl::Status UnknownOutputs(InferenceContext* c) {
  TF_RETURN_IF_ERROR(HandleShape(c));
  return tensorflow::shape_inference::UnknownShape(c);
}

REGISTER_OP("Batcher")
    .Output("handle: resource")
    .Attr("minimum_batch_size: int = 1")
    .Attr("maximum_batch_size: int = 1024")
    .Attr("timeout_ms: int = 100")
    .Attr("allowed_batch_sizes: list(int) >= 0 = []")
    .Attr("input_types: list(type) >= 1")
    .Attr("input_shapes: list(shape) >= 1")
    .Attr("output_types: list(type) >= 1")
    .Attr("output_shapes: list(shape) >= 1")
    .SetIsStateful()
    .SetShapeFn(tensorflow::shape_inference::ScalarShape)
    .Doc(R"doc(
Creates a batcher, which joins concurrent calls into batches.

A batch is ready as soon as `minimum_batch_size` rows wait, or once the oldest
waiting call is `timeout_ms` old. Calls are taken in order of arrival while they
fit into `maximum_batch_size` rows; a call is never split.

handle: The batcher. It lives as long as a handle to it.
minimum_batch_size: Rows, at least 1.
maximum_batch_size: Rows, at least `minimum_batch_size`.
timeout_ms: Milliseconds. 0 serves whatever waits at once, -1 waits for
  `minimum_batch_size` however long it takes.
allowed_batch_sizes: Rows, increasing, the last at least `maximum_batch_size`. A
  batch is padded up to the next of them with copies of its last row, whose
  outputs are dropped. Empty: no batch is padded.
input_types: The only types that `BatcherCompute` accepts.
input_shapes: Their shapes, with the rows as first dimension.
output_types: The only types that `BatcherSetOutputs` accepts.
output_shapes: Their shapes, with the rows as first dimension.
)doc");

REGISTER_OP("BatcherCompute")
    .Input("handle: resource")
    .Input("input_list: Tinput_list")
    .Output("output_list: Toutput_list")
    .Attr("Tinput_list: list(type) >= 1")
    .Attr("Toutput_list: list(type) >= 1")
    .SetIsStateful()
    .SetShapeFn(UnknownOutputs)
    .Doc(R"doc(
Has some rows computed as a part of a batch and waits for the result.

Fails with `Cancelled` when the batcher is closed or the step is cancelled, and
with the error given to `BatcherSetError` when the computation fails.

handle: The batcher.
input_list: Tensors as declared, of the same first dimension: at least 1 and at
  most `maximum_batch_size` rows.
output_list: The result of the computation for these rows.
)doc");

REGISTER_OP("BatcherGetInputs")
    .Input("handle: resource")
    .Output("input_list: Tinput_list")
    .Output("computation_id: int64")
    .Attr("Tinput_list: list(type) >= 1")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext* c) {
      TF_RETURN_IF_ERROR(UnknownOutputs(c));
      c->set_output(c->num_outputs() - 1, c->Scalar());
      return absl::OkStatus();
    })
    .Doc(R"doc(
Waits for a batch and takes it.

Every batch has to be answered by `BatcherSetOutputs` or `BatcherSetError`. Any
number of these ops may wait at the same time. Fails with `Cancelled` when the
batcher is closed or the step is cancelled.

handle: The batcher.
input_list: The inputs of the calls in the batch, joined along the rows.
computation_id: Identifies the batch.
)doc");

REGISTER_OP("BatcherSetOutputs")
    .Input("handle: resource")
    .Input("output_list: Toutput_list")
    .Input("computation_id: int64")
    .Attr("Toutput_list: list(type) >= 1")
    .SetIsStateful()
    .SetShapeFn(HandleAndIdShape)
    .Doc(R"doc(
Answers the calls of a batch, each with its own rows.

After an error (but not `Invalid computation id`) the batch is still open.

handle: The batcher.
output_list: Tensors as declared, with the rows of the inputs of the batch,
  padding included.
computation_id: The batch, from `BatcherGetInputs`.
)doc");

REGISTER_OP("BatcherSetError")
    .Input("handle: resource")
    .Input("computation_id: int64")
    .Input("error_code: int32")
    .Input("error_message: string")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext* c) {
      TF_RETURN_IF_ERROR(HandleAndIdShape(c));
      TF_RETURN_IF_ERROR(RequireScalar(c, "error_code"));
      return RequireScalar(c, "error_message");
    })
    .Doc(R"doc(
Answers the calls of a batch with an error.

handle: The batcher.
computation_id: The batch, from `BatcherGetInputs`.
error_code: A canonical error code, not 0.
error_message: The message of the error.
)doc");

REGISTER_OP("BatcherClose")
    .Input("handle: resource")
    .SetIsStateful()
    .SetShapeFn(HandleShape)
    .Doc(R"doc(
Closes the batcher: everything that waits, or comes later, fails.

Closing a closed batcher does nothing.

handle: The batcher.
)doc");

REGISTER_OP("BatcherStatistics")
    .Input("handle: resource")
    .Output("closed: bool")
    .Output("counters: int64")
    .Output("mean_wait_ms: double")
    .Output("batch_sizes: int64")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext* c) {
      TF_RETURN_IF_ERROR(HandleShape(c));
      c->set_output(0, c->Scalar());
      c->set_output(1, c->Vector(5));
      c->set_output(2, c->Scalar());
      c->set_output(3, c->Matrix(c->UnknownDim(), 2));
      return absl::OkStatus();
    })
    .Doc(R"doc(
Reads what the batcher has done so far.

handle: The batcher.
closed: Whether the batcher is closed.
counters: Waiting calls, waiting rows, and the batches, calls and rows served.
mean_wait_ms: Mean time that a served call waited for its batch, milliseconds.
batch_sizes: Rows of a batch and the number of batches of that size, `[N, 2]`.
)doc");

}  // namespace
}  // namespace dynamic_batching
