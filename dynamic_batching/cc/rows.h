// SPDX-License-Identifier: Apache-2.0
//
// Copies rows (slices of the first dimension) between tensors.

#ifndef DYNAMIC_BATCHING_CC_ROWS_H_
#define DYNAMIC_BATCHING_CC_ROWS_H_

#include <algorithm>
#include <cstring>

#include "tensorflow/core/common_runtime/dma_helper.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/framework/types.h"

namespace dynamic_batching {

using tensorflow::Tensor;
using tensorflow::TensorShape;

inline TensorShape ShapeWithRows(TensorShape shape, int64_t rows) {
  shape.set_dim(0, rows);
  return shape;
}

// Whether CopyRows can copy rows of this type.
inline bool HasRowsToCopy(tensorflow::DataType type) {
  return type == tensorflow::DT_STRING ||
         tensorflow::DataTypeCanUseMemcpy(type);
}

// Whether somebody else may write to the memory of the tensor: that of a NumPy
// array, which TensorFlow does not copy if it is aligned.
inline bool IsBorrowed(const Tensor& tensor) {
  const tensorflow::TensorBuffer* buffer =
      tensorflow::DMAHelper::buffer(&tensor);
  return buffer != nullptr &&
         !const_cast<tensorflow::TensorBuffer*>(buffer)
              ->root_buffer()
              ->OwnsMemory();
}

// Both tensors must have the same type and, but for the rows, the same shape.
inline void CopyRows(const Tensor& from, int64_t from_row, Tensor* to,
                     int64_t to_row, int64_t rows) {
  if (from.NumElements() == 0 || rows == 0) return;
  const int64_t row_size = from.NumElements() / from.dim_size(0);
  const int64_t from_start = from_row * row_size;
  const int64_t to_start = to_row * row_size;
  const int64_t count = rows * row_size;
  if (from.dtype() == tensorflow::DT_STRING) {
    const auto* source = from.flat<tensorflow::tstring>().data() + from_start;
    std::copy(source, source + count,
              to->flat<tensorflow::tstring>().data() + to_start);
  } else {
    const int64_t size = tensorflow::DataTypeSize(from.dtype());
    std::memcpy(static_cast<char*>(to->data()) + to_start * size,
                static_cast<const char*>(from.data()) + from_start * size,
                count * size);
  }
}

}  // namespace dynamic_batching

#endif  // DYNAMIC_BATCHING_CC_ROWS_H_
