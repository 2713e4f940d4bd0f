// SPDX-License-Identifier: Apache-2.0
//
// Copies rows (slices of the first dimension) between tensors.

#ifndef DYNAMIC_BATCHING_CC_ROWS_H_
#define DYNAMIC_BATCHING_CC_ROWS_H_

#include <algorithm>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/framework/types.h"
#include "tensorflow/core/framework/variant.h"

namespace dynamic_batching {

using tensorflow::Tensor;
using tensorflow::TensorShape;

inline TensorShape ShapeWithRows(TensorShape shape, int64_t rows) {
  shape.set_dim(0, rows);
  return shape;
}

template <typename T>
void CopyElements(const Tensor& from, int64_t from_start, Tensor* to,
                  int64_t to_start, int64_t count) {
  const T* source = from.flat<T>().data() + from_start;
  std::copy(source, source + count, to->flat<T>().data() + to_start);
}

// Both tensors must have the same type and, but for the rows, the same shape.
inline absl::Status CopyRows(const Tensor& from, int64_t from_row, Tensor* to,
                             int64_t to_row, int64_t rows) {
  if (from.NumElements() == 0 || rows == 0) return absl::OkStatus();
  const int64_t row_size = from.NumElements() / from.dim_size(0);
  const int64_t from_start = from_row * row_size;
  const int64_t to_start = to_row * row_size;
  const int64_t count = rows * row_size;
  if (tensorflow::DataTypeCanUseMemcpy(from.dtype())) {
    const int64_t size = tensorflow::DataTypeSize(from.dtype());
    std::memcpy(static_cast<char*>(to->data()) + to_start * size,
                static_cast<const char*>(from.data()) + from_start * size,
                count * size);
    return absl::OkStatus();
  }
  switch (from.dtype()) {
    case tensorflow::DT_STRING:
      CopyElements<tensorflow::tstring>(from, from_start, to, to_start, count);
      return absl::OkStatus();
    case tensorflow::DT_VARIANT:
      CopyElements<tensorflow::Variant>(from, from_start, to, to_start, count);
      return absl::OkStatus();
    default:
      return absl::UnimplementedError(
          absl::StrCat("Batcher cannot copy rows of type ",
                       tensorflow::DataTypeString(from.dtype())));
  }
}

}  // namespace dynamic_batching

#endif  // DYNAMIC_BATCHING_CC_ROWS_H_
