// SPDX-License-Identifier: Apache-2.0
//
// What the ops demand of options, inputs and outputs, with the error texts.

#ifndef DYNAMIC_BATCHING_CC_CHECKS_H_
#define DYNAMIC_BATCHING_CC_CHECKS_H_

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "dynamic_batching/cc/batch_ledger.h"
#include "dynamic_batching/cc/batcher_resource.h"
#include "dynamic_batching/cc/rows.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/types.h"

namespace dynamic_batching {

// 24 days; far below what overflows the clock.
constexpr int64_t kLongestTimeoutMs = 2147483647;

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
  if (options.timeout_ms > kLongestTimeoutMs) {
    return absl::InvalidArgumentError(
        absl::StrCat("timeout_ms must be at most ", kLongestTimeoutMs,
                     " milliseconds, or -1 for no timeout, but was ",
                     options.timeout_ms));
  }
  const std::vector<int64_t>& allowed = options.allowed_rows;
  if (allowed.empty()) return absl::OkStatus();
  if (std::adjacent_find(allowed.begin(), allowed.end(),
                         std::greater_equal<>()) != allowed.end() ||
      allowed.front() < 1 || allowed.back() < options.maximum_rows) {
    return absl::InvalidArgumentError(absl::StrCat(
        "allowed_batch_sizes must be increasing numbers of rows, the last at "
        "least maximum_batch_size=",
        options.maximum_rows, ", but was [", absl::StrJoin(allowed, ", "),
        "]"));
  }
  return absl::OkStatus();
}

inline absl::Status CheckSpecs(const char* name, const Specs& specs) {
  if (specs.types.size() != specs.shapes.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        name, "_types and ", name, "_shapes must have the same length but have ",
        specs.types.size(), " and ", specs.shapes.size()));
  }
  for (const tensorflow::DataType type : specs.types) {
    if (!HasRowsToCopy(type)) {
      return absl::InvalidArgumentError(
          absl::StrCat("Batcher cannot copy rows of type ",
                       tensorflow::DataTypeString(type)));
    }
  }
  return absl::OkStatus();
}

// Checks the types that a use of the batcher declares. `name` is "Input" or
// "Output", here and below.
inline absl::Status CheckTypes(const char* name, const Specs& specs,
                               absl::Span<const tensorflow::DataType> types) {
  if (specs.types.size() != types.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        name, "s of the batcher are ", specs.types.size(),
        " tensors but these are ", types.size()));
  }
  for (size_t i = 0; i < types.size(); ++i) {
    if (specs.types[i] != types[i]) {
      return absl::InvalidArgumentError(absl::StrCat(
          name, " ", i, " must be ",
          tensorflow::DataTypeString(specs.types[i]), " of shape ",
          specs.shapes[i].DebugString(), " but was ",
          tensorflow::DataTypeString(types[i])));
    }
  }
  return absl::OkStatus();
}

// Checks tensors of the right types and tells how many rows each of them has.
inline absl::Status CheckRows(const char* name, const Specs& specs,
                              const tensorflow::OpInputList& tensors,
                              int64_t* rows) {
  for (int i = 0; i < tensors.size(); ++i) {
    const tensorflow::TensorShape& shape = tensors[i].shape();
    if (shape.dims() == 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          name, " shape must have a batch dimension. Shape observed: ",
          shape.DebugString()));
    }
    if (shape.dim_size(0) != tensors[0].dim_size(0)) {
      const std::string lower = absl::AsciiStrToLower(name);
      return absl::InvalidArgumentError(absl::StrCat(
          "Batcher requires ", lower, "s of the same batch size but ", lower,
          " 0 has ", tensors[0].dim_size(0), " rows and ", lower, " ", i,
          " has ", shape.dim_size(0)));
    }
    if (!specs.shapes[i].IsCompatibleWith(shape)) {
      return absl::InvalidArgumentError(absl::StrCat(
          name, " ", i, " must be ", tensorflow::DataTypeString(specs.types[i]),
          " of shape ", specs.shapes[i].DebugString(), " but was of shape ",
          shape.DebugString()));
    }
  }
  *rows = tensors[0].dim_size(0);
  return absl::OkStatus();
}

inline absl::Status CheckCallSize(int64_t rows, const LedgerOptions& options) {
  if (rows < 1) {
    return absl::InvalidArgumentError(
        "Batcher requires a batch size of at least 1 row but was 0");
  }
  if (rows > options.maximum_rows) {
    return absl::InvalidArgumentError(absl::StrCat(
        "Batcher requires a batch size of at most maximum_batch_size=",
        options.maximum_rows, " rows but was ", rows));
  }
  return absl::OkStatus();
}

// Describes one row: only calls of equal signature share a batch.
inline std::string Signature(const tensorflow::OpInputList& inputs) {
  std::string signature;
  for (int i = 0; i < inputs.size(); ++i) {
    absl::StrAppend(&signature, i == 0 ? "" : ", ",
                    tensorflow::DataTypeString(inputs[i].dtype()), "[");
    for (int j = 1; j < inputs[i].dims(); ++j) {
      absl::StrAppend(&signature, j == 1 ? "" : ",", inputs[i].dim_size(j));
    }
    absl::StrAppend(&signature, "]");
  }
  return signature;
}

// Shape functions do not see the inputs of eager ops.
template <typename T>
absl::Status FindScalar(tensorflow::OpKernelContext* context, const char* name,
                        const T** value) {
  const tensorflow::Tensor* tensor;
  TF_RETURN_IF_ERROR(context->input(name, &tensor));
  if (tensor->dims() != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, " must be a scalar but has the shape ",
                     tensor->shape().DebugString()));
  }
  *value = &tensor->scalar<T>()();
  return absl::OkStatus();
}

template <typename T>
absl::Status ReadScalar(tensorflow::OpKernelContext* context, const char* name,
                        T* value) {
  const T* found;
  TF_RETURN_IF_ERROR(FindScalar(context, name, &found));
  *value = *found;
  return absl::OkStatus();
}

}  // namespace dynamic_batching

#endif  // DYNAMIC_BATCHING_CC_CHECKS_H_
