// SPDX-License-Identifier: Apache-2.0
//
// What the ops demand of options, inputs and outputs, with the error texts.

#ifndef DYNAMIC_BATCHING_CC_CHECKS_H_
#define DYNAMIC_BATCHING_CC_CHECKS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "dynamic_batching/cc/batch_ledger.h"
#include "dynamic_batching/cc/batcher_resource.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/types.h"

namespace dynamic_batching {

inline absl::Status CheckOptions(const LedgerOptions& options) {
  if (options.minimum_rows < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("minimum_batch_size must be at least 1 row but was ",
                     options.minimum_rows));
  }
  if (options.maximum_rows < options.minimum_rows) {
    return absl::InvalidArgumentError(absl::StrCat(
        "maximum_batch_size must be at least minimum_batch_size=",
        options.minimum_rows, " rows but was ", options.maximum_rows));
  }
  if (options.timeout_ms < -1) {
    return absl::InvalidArgumentError(
        absl::StrCat("timeout_ms must be at least 0 milliseconds, or -1 for no "
                     "timeout, but was ",
                     options.timeout_ms));
  }
  return absl::OkStatus();
}

// Checks the inputs of one call and describes one row of them.
inline absl::Status CheckInputs(const BatcherResource& batcher,
                                const tensorflow::OpInputList& inputs,
                                std::string* signature) {
  const InputSpecs& specs = batcher.specs;
  if (!specs.types.empty() &&
      static_cast<int>(specs.types.size()) != inputs.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("Batcher takes ", specs.types.size(),
                     " input tensors but got ", inputs.size()));
  }
  for (int i = 0; i < inputs.size(); ++i) {
    const tensorflow::TensorShape& shape = inputs[i].shape();
    if (shape.dims() == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("Input shape must have a batch dimension. Shape "
                       "observed: ",
                       shape.DebugString()));
    }
    if (shape.dim_size(0) != inputs[0].dim_size(0)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "Batcher requires inputs of the same batch size but input 0 has ",
          inputs[0].dim_size(0), " rows and input ", i, " has ",
          shape.dim_size(0)));
    }
    if (!specs.types.empty() &&
        (specs.types[i] != inputs[i].dtype() ||
         !specs.shapes[i].IsCompatibleWith(shape))) {
      return absl::InvalidArgumentError(absl::StrCat(
          "Input ", i, " must be ", tensorflow::DataTypeString(specs.types[i]),
          " of shape ", specs.shapes[i].DebugString(), " but was ",
          tensorflow::DataTypeString(inputs[i].dtype()), " of shape ",
          shape.DebugString()));
    }
    absl::StrAppend(signature, i == 0 ? "" : ", ",
                    tensorflow::DataTypeString(inputs[i].dtype()), "[");
    for (int j = 1; j < shape.dims(); ++j) {
      absl::StrAppend(signature, j == 1 ? "" : ",", shape.dim_size(j));
    }
    absl::StrAppend(signature, "]");
  }
  const int64_t rows = inputs[0].dim_size(0);
  const int64_t maximum = batcher.ledger->options.maximum_rows;
  if (rows < 1) {
    return absl::InvalidArgumentError(
        "Batcher requires a batch size of at least 1 row but was 0");
  }
  if (rows > maximum) {
    return absl::InvalidArgumentError(absl::StrCat(
        "Batcher requires a batch size of at most maximum_batch_size=", maximum,
        " rows but was ", rows));
  }
  return absl::OkStatus();
}

inline absl::Status CheckOutputs(
    const std::vector<tensorflow::Tensor>& outputs, int64_t rows) {
  for (const tensorflow::Tensor& output : outputs) {
    if (output.dims() == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("Output shape must have a batch dimension. Shape "
                       "observed: ",
                       output.shape().DebugString()));
    }
    if (output.dim_size(0) != rows) {
      return absl::InvalidArgumentError(absl::StrCat(
          "Output shape must have the same batch dimension as the input "
          "batch size. Expected: ",
          rows, " Observed: ", output.dim_size(0)));
    }
  }
  return absl::OkStatus();
}

}  // namespace dynamic_batching

#endif  // DYNAMIC_BATCHING_CC_CHECKS_H_
