// Operations on the rows of an embedding table, for training on CPUs; `trainer/kernels.py` loads them.
//
// A large table is in no cache, so a step's time is that of its ways to memory. These operations ask for a row's cache
// lines some rows before they need them, and go over the rows once where TensorFlow's own operations take ten passes.
//
// They are registered by TensorFlow's C API, which is the same in all versions, and whose functions are looked up in
// the library that the process has loaded. So one build serves every TensorFlow 2, and needs none to be built.
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

namespace {

// ---- TensorFlow's C API: tensorflow/c/{tf_status,tf_tensor,kernels,ops}.h -----------------------------------------

struct TF_Status;
struct TF_Tensor;
struct TF_OpKernelContext;
struct TF_OpKernelConstruction;
struct TF_KernelBuilder;
struct TF_OpDefinitionBuilder;
struct TF_ShapeInferenceContext;

enum { TF_INVALID_ARGUMENT = 3 };      // TF_Code
enum { TF_FLOAT = 1, TF_INT32 = 3 };   // TF_DataType

using Create = void* (*)(TF_OpKernelConstruction*);
using Compute = void (*)(void* kernel, TF_OpKernelContext*);
using Delete = void (*)(void* kernel);
using InferShapes = void (*)(TF_ShapeInferenceContext*, TF_Status*);

#define FUNCTIONS(F)                                                                                                 \
  F(TF_Status*, TF_NewStatus, ())                                                                                    \
  F(void, TF_DeleteStatus, (TF_Status*))                                                                             \
  F(void, TF_SetStatus, (TF_Status*, int code, const char* message))                                                 \
  F(int, TF_GetCode, (const TF_Status*))                                                                             \
  F(const char*, TF_Message, (const TF_Status*))                                                                     \
  F(void*, TF_TensorData, (const TF_Tensor*))                                                                        \
  F(int, TF_NumDims, (const TF_Tensor*))                                                                             \
  F(int64_t, TF_Dim, (const TF_Tensor*, int))                                                                        \
  F(int64_t, TF_TensorElementCount, (const TF_Tensor*))                                                              \
  F(void, TF_DeleteTensor, (TF_Tensor*))                                                                             \
  F(void, TF_GetInput, (TF_OpKernelContext*, int, TF_Tensor**, TF_Status*))                                          \
  F(TF_Tensor*, TF_AllocateOutput, (TF_OpKernelContext*, int, int, const int64_t*, int, size_t, TF_Status*))         \
  F(void, TF_OpKernelContext_Failure, (TF_OpKernelContext*, TF_Status*))                                             \
  F(void, TF_OpKernelConstruction_GetAttrFloat, (TF_OpKernelConstruction*, const char*, float*, TF_Status*))         \
  F(void, TF_OpKernelConstruction_GetAttrBool, (TF_OpKernelConstruction*, const char*, unsigned char*, TF_Status*))  \
  F(TF_KernelBuilder*, TF_NewKernelBuilder, (const char* op, const char* device, Create, Compute, Delete))           \
  F(void, TF_RegisterKernelBuilder, (const char* name, TF_KernelBuilder*, TF_Status*))                               \
  F(TF_OpDefinitionBuilder*, TF_NewOpDefinitionBuilder, (const char* name))                                          \
  F(void, TF_OpDefinitionBuilderAddAttr, (TF_OpDefinitionBuilder*, const char*))                                     \
  F(void, TF_OpDefinitionBuilderAddInput, (TF_OpDefinitionBuilder*, const char*))                                    \
  F(void, TF_OpDefinitionBuilderAddOutput, (TF_OpDefinitionBuilder*, const char*))                                   \
  F(void, TF_OpDefinitionBuilderSetIsStateful, (TF_OpDefinitionBuilder*, bool))                                      \
  F(void, TF_OpDefinitionBuilderSetShapeInferenceFunction, (TF_OpDefinitionBuilder*, InferShapes))                   \
  F(void, TF_ShapeInferenceContextSetUnknownShape, (TF_ShapeInferenceContext*, TF_Status*))                          \
  F(void, TF_RegisterOpDefinition, (TF_OpDefinitionBuilder*, TF_Status*))

#define DECLARE(result, name, arguments) result(*name) arguments;
FUNCTIONS(DECLARE)
#undef DECLARE

// ---- Calls of an operation ------------------------------------------------------------------------------------------

class Tensor {
 public:
  explicit Tensor(TF_Tensor* tensor) : tensor_(tensor), size_(tensor ? TF_TensorElementCount(tensor) : 0) {}
  Tensor(Tensor&& other) noexcept : tensor_(other.tensor_), size_(other.size_) { other.tensor_ = nullptr; }
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;
  ~Tensor() {
    if (tensor_) TF_DeleteTensor(tensor_);
  }
  template <typename T>
  T* data() const {
    return static_cast<T*>(TF_TensorData(tensor_));
  }
  int64_t size() const { return size_; }  // for loops: a call of TensorFlow's is dearer than what they do
  int rank() const { return TF_NumDims(tensor_); }
  int64_t dim(int axis) const { return TF_Dim(tensor_, axis); }
  bool has_shape(std::initializer_list<int64_t> shape) const {
    if (rank() != static_cast<int>(shape.size())) return false;
    int axis = 0;
    return std::all_of(shape.begin(), shape.end(), [&](int64_t length) { return length == dim(axis++); });
  }

 private:
  TF_Tensor* tensor_;
  int64_t size_;
};

// One call of an operation. After the first thing that goes wrong, `ok` is false, and the step fails with its message.
class Call {
 public:
  explicit Call(TF_OpKernelContext* context) : context_(context), status_(TF_NewStatus()) {}
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  ~Call() {
    if (!ok()) TF_OpKernelContext_Failure(context_, status_);
    TF_DeleteStatus(status_);
  }
  bool ok() const { return TF_GetCode(status_) == 0; }
  bool require(bool holds, const std::string& message) {
    if (ok() && !holds) TF_SetStatus(status_, TF_INVALID_ARGUMENT, message.c_str());
    return ok();
  }
  Tensor input(int index) {
    TF_Tensor* tensor = nullptr;
    if (ok()) TF_GetInput(context_, index, &tensor, status_);
    return Tensor(tensor);
  }
  // The memory of the variable that input 0 is, which input 1 has been read of: TensorFlow's read does not copy it, as
  // long as none of TensorFlow's operations goes to single rows of it. Input 0 is only for the order of reads and writes.
  Tensor table() {
    Tensor tensor = input(1);
    require(ok() && tensor.rank() == 2, "a table is a variable with two axes");
    return tensor;
  }
  Tensor output(int index, int type, std::initializer_list<int64_t> shape) {
    int64_t bytes = 4;  // of a float or an int32
    for (int64_t length : shape) bytes *= length;
    TF_Tensor* tensor = nullptr;
    if (ok()) {
      const int rank = static_cast<int>(shape.size());
      tensor = TF_AllocateOutput(context_, index, type, shape.begin(), rank, bytes, status_);
    }
    return Tensor(tensor);
  }

 private:
  TF_OpKernelContext* context_;
  TF_Status* status_;
};

#define SIMD _Pragma("omp simd")

constexpr int kAhead = 16;  // places in memory that are asked for at a time before they are needed, at least

// Asks for the cache lines of numbers that may begin anywhere: without a branch where they are at most 16.
void Prefetch(const float* begin, int64_t length) {
  const char* last = reinterpret_cast<const char*>(begin + length) - 1;
  for (const char* line = reinterpret_cast<const char*>(begin); line < last; line += 64) __builtin_prefetch(line);
  __builtin_prefetch(last);
}

// The same of a table's row, which mostly begins with a cache line: for each line once.
void PrefetchRow(const float* begin, int64_t length) {
  const char* const end = reinterpret_cast<const char*>(begin + length);
  const char* line = reinterpret_cast<const char*>(reinterpret_cast<uintptr_t>(begin) & ~uintptr_t{63});
  for (; line < end; line += 64) __builtin_prefetch(line);
}

// Calls `compute` with `dim` as a type, if it has loops of its own, or else with 0 as one. A row has `dim` factors, and
// one weight more.
template <typename F>
void WithDim(int64_t dim, const F& compute) {
  switch (dim) {
    case 8: return compute(std::integral_constant<int, 8>());
    case 16: return compute(std::integral_constant<int, 16>());
    case 32: return compute(std::integral_constant<int, 32>());
    default: return compute(std::integral_constant<int, 0>());
  }
}

// Requires each of `rows` to be one of a table's.
bool AreRows(Call& call, const Tensor& rows, int64_t num_rows) {
  const int32_t* row = rows.data<int32_t>();
  for (int64_t i = 0; i < rows.size(); ++i) {
    if (static_cast<uint32_t>(row[i]) >= static_cast<uint64_t>(num_rows)) {
      return call.require(false, "row " + std::to_string(row[i]) + " of a table of " + std::to_string(num_rows));
    }
  }
  return true;
}

// ---- CtrPlanRows ----------------------------------------------------------------------------------------------------
//
// The different rows of a batch, in the order in which they come first, and which of them stands at each position.

void PlanRows(void*, TF_OpKernelContext* context) {
  Call call(context);
  Tensor ids = call.input(0), offsets = call.input(1);
  if (!call.ok()) return;
  const bool fits = ids.rank() == 2 && offsets.has_shape({ids.dim(1)});
  if (!call.require(fits, "an offset for each position is needed")) return;
  const int64_t size = ids.size(), num_positions = ids.dim(1);
  if (!call.require(size < (int64_t{1} << 30), "a batch has 2^30 positions or more")) return;
  Tensor position = call.output(1, TF_INT32, {ids.dim(0), num_positions});
  if (!call.ok()) return;
  const int64_t* id = ids.data<int64_t>();
  const int32_t* offset = offsets.data<int32_t>();
  int32_t* place = position.data<int32_t>();

  int bits = 4;
  while ((int64_t{1} << bits) * 3 < 4 * size) ++bits;
  const uint32_t mask = (uint32_t{1} << bits) - 1;
  const auto hash = [bits](int32_t row) { return (static_cast<uint32_t>(row) * 2654435769u) >> (32 - bits); };
  // Kept from call to call: new memory costs more than what is done with it.
  static thread_local std::vector<int32_t> kept[3];
  kept[0].assign(size_t{1} << bits, -1);
  kept[1].resize(size);
  kept[2].resize(size);
  int32_t *const slots = kept[0].data(), *const rows = kept[1].data(), *const different = kept[2].data();
  for (int64_t i = 0; i < size; i += num_positions) {
    for (int64_t j = 0; j < num_positions; ++j) {
      rows[i + j] = id[i + j] > 0 ? static_cast<int32_t>(id[i + j]) + offset[j] : 0;
    }
  }
  int32_t count = 0;
  for (int64_t i = 0; i < size; ++i) {
    if (i + kAhead < size) __builtin_prefetch(slots + hash(rows[i + kAhead]), 1);
    const int32_t row = rows[i];
    uint32_t at = hash(row);
    int32_t found = slots[at];
    while (found >= 0 && different[found] != row) {
      at = (at + 1) & mask;
      found = slots[at];
    }
    if (found < 0) {
      found = slots[at] = count++;
      different[found] = row;
    }
    place[i] = found;
  }
  Tensor output = call.output(0, TF_INT32, {count});
  if (call.ok()) std::memcpy(output.data<int32_t>(), different, count * sizeof(int32_t));
}

// ---- CtrReadRows ----------------------------------------------------------------------------------------------------
//
// The first `width` numbers of each of some rows.

void ReadRows(void*, TF_OpKernelContext* context) {
  Call call(context);
  Tensor table = call.table(), rows = call.input(2), width_input = call.input(3);
  if (!call.ok() || !call.require(width_input.size() == 1, "one width is needed")) return;
  const int64_t width = *width_input.data<int32_t>(), stride = table.dim(1), size = rows.size();
  if (!call.require(0 <= width && width <= stride, "a row is not as long")) return;
  if (!AreRows(call, rows, table.dim(0))) return;
  Tensor output = call.output(0, TF_FLOAT, {size, width});
  if (!call.ok()) return;
  const int32_t* row = rows.data<int32_t>();
  const float* stored = table.data<float>();
  float* values = output.data<float>();
  WithDim(width - 1, [&](auto dim) {
    const int64_t known_width = dim ? dim + 1 : width;
    for (int64_t i = 0; i < size; ++i) {
      if (i + kAhead < size) PrefetchRow(stored + row[i + kAhead] * stride, width);
      std::memcpy(values + i * known_width, stored + row[i] * stride, known_width * sizeof(float));
    }
  });
}

// ---- CtrInteract and CtrInteractGradient ----------------------------------------------------------------------------
//
// What `trainer/layers.py`'s `interact` gives, and its gradient, from rows that have been read once each. Row 0, which
// is padding, is left out. A row of the tower's input is the fields' vectors, and the numbers behind them.

enum Pooling { kSum = 0, kMean = 1, kSqrtn = 2 };

struct Interact {
  bool over_positions;
};

void* CreateInteract(TF_OpKernelConstruction* construction) {
  TF_Status* status = TF_NewStatus();
  unsigned char over_positions = 0;
  TF_OpKernelConstruction_GetAttrBool(construction, "over_positions", &over_positions, status);
  TF_DeleteStatus(status);
  return new Interact{over_positions != 0};
}

struct Field {
  int32_t size, hashes, pooling;  // positions; hashes of an id, each of which has a position; see `Pooling`
};

// The inputs that both operations have first.
struct Batch {
  Tensor values, rows, positions, sizes, hashes, poolings;
  int64_t width, dim, batch, num_positions, num_fields;
  int32_t padding = -1;  // the place of row 0 among the rows
  std::vector<Field> layout;

  explicit Batch(Call& call)
      : values(call.input(0)), rows(call.input(1)), positions(call.input(2)), sizes(call.input(3)),
        hashes(call.input(4)), poolings(call.input(5)) {
    if (!call.ok()) return;
    if (!call.require(values.rank() == 2 && positions.rank() == 2, "values and positions have two axes")) return;
    width = values.dim(1), dim = width - 1, batch = positions.dim(0), num_positions = positions.dim(1);
    num_fields = sizes.size();
    bool fits = rows.size() == values.dim(0) && width > 0;
    fits = fits && hashes.size() == num_fields && poolings.size() == num_fields;
    int64_t total = 0;
    for (int64_t field = 0; fits && field < num_fields; ++field) {
      const int32_t size = sizes.data<int32_t>()[field], of_id = hashes.data<int32_t>()[field];
      // Of one id, all poolings are the same.
      layout.push_back({size, of_id, size == of_id ? kSum : poolings.data<int32_t>()[field]});
      fits = size >= 0;
      total += size;
    }
    if (!call.require(fits && total == num_positions, "the fields have other positions")) return;
    const int32_t* row = rows.data<int32_t>();
    const int32_t* end = row + rows.size();
    const int32_t* found = std::find(row, end, 0);
    if (found != end) padding = static_cast<int32_t>(found - row);
    const int32_t* position = positions.data<int32_t>();
    const bool is_read = std::all_of(position, position + positions.size(), [&](int32_t index) {
      return static_cast<uint32_t>(index) < static_cast<uint64_t>(rows.size());
    });
    call.require(is_read, "a position's row has not been read");
  }

  // What a field's sum is multiplied with, where `count` of its positions have an id.
  float scale(int64_t field, int64_t count) const {
    const Field& of = layout[field];
    if (of.pooling == kSum || count == 0) return 1;
    const float ids = static_cast<float>(count) / of.hashes;
    return of.pooling == kMean ? 1 / ids : 1 / std::sqrt(ids);
  }
};

// Calls `compute` with the number of factors, see `WithDim`, and `over_positions`, as types.
template <typename F>
void Specialize(const Interact& interact, int64_t dim, const F& compute) {
  WithDim(dim, [&](auto known_dim) {
    if (interact.over_positions) {
      compute(known_dim, std::true_type());
    } else {
      compute(known_dim, std::false_type());
    }
  });
}

template <int kSize>
struct Numbers : std::array<float, kSize> {
  explicit Numbers(int64_t) {}
};
template <>
struct Numbers<0> : std::vector<float> {
  explicit Numbers(int64_t size) : std::vector<float>(size) {}
};

template <int kDim, bool over_positions>
void InteractExamples(const Batch& b, const float* numbers, int64_t num_numbers, float* linear, float* total,
                      float* squares, float* tower) {
  const int64_t dim = kDim ? kDim : b.dim, width = dim + 1, num_fields = b.num_fields;
  Numbers<kDim> sum(dim), of_squares(dim);
  const float* values = b.values.data<float>();
  const int32_t* position = b.positions.data<int32_t>();
  const int32_t* const last = position + b.positions.size() - 1;
  const int32_t padding = b.padding;
  for (int64_t example = 0; example < b.batch; ++example, total += dim) {
    float of_linear = 0;
    SIMD for (int64_t j = 0; j < dim; ++j) total[j] = of_squares[j] = 0;
    for (int64_t field = 0; field < num_fields; ++field, tower += dim) {
      SIMD for (int64_t j = 0; j < dim; ++j) sum[j] = 0;
      int64_t count = 0;
      for (const int32_t* end = position + b.layout[field].size; position < end; ++position) {
        Prefetch(values + *std::min(position + kAhead, last) * width, width);
        if (*position == padding) continue;
        const float* __restrict row = values + *position * width;
        of_linear += row[0];
        SIMD for (int64_t j = 0; j < dim; ++j) sum[j] += row[j + 1];
        if (over_positions) {
          SIMD for (int64_t j = 0; j < dim; ++j) of_squares[j] += row[j + 1] * row[j + 1];
        }
        ++count;
      }
      const float scale = b.scale(field, count);
      SIMD for (int64_t j = 0; j < dim; ++j) {
        const float of_field = sum[j] * scale;
        tower[j] = of_field;
        total[j] += over_positions ? sum[j] : of_field;
        if (!over_positions) of_squares[j] += of_field * of_field;
      }
    }
    tower = std::copy(numbers, numbers + num_numbers, tower);
    numbers += num_numbers;
    linear[example] = of_linear;
    squares[example] = 0;
    for (int64_t j = 0; j < dim; ++j) squares[example] += of_squares[j];
  }
}

void ComputeInteract(void* kernel, TF_OpKernelContext* context) {
  Call call(context);
  Batch b(call);
  Tensor numbers = call.input(6);
  if (!call.ok()) return;
  if (!call.require(numbers.rank() == 2 && numbers.dim(0) == b.batch, "numbers for each example are needed")) return;
  const int64_t num_numbers = numbers.dim(1);
  Tensor linear = call.output(0, TF_FLOAT, {b.batch, 1}), total = call.output(1, TF_FLOAT, {b.batch, b.dim});
  Tensor squares = call.output(2, TF_FLOAT, {b.batch, 1});
  Tensor tower = call.output(3, TF_FLOAT, {b.batch, b.num_fields * b.dim + num_numbers});
  if (!call.ok()) return;
  Specialize(*static_cast<Interact*>(kernel), b.dim, [&](auto dim, auto over_positions) {
    InteractExamples<decltype(dim)::value, decltype(over_positions)::value>(
        b, numbers.data<float>(), num_numbers, linear.data<float>(), total.data<float>(), squares.data<float>(),
        tower.data<float>());
  });
}

// What the gradient of `CtrInteract` is made from, and what it is.
struct Gradient {
  const float *tower, *d_linear, *d_total, *d_squares, *d_tower;
  float* d_values;
  int64_t num_numbers;
};

template <int kDim, bool over_positions>
void InteractGradientOfExamples(const Batch& b, const Gradient& gradient) {
  const int64_t dim = kDim ? kDim : b.dim, width = dim + 1, num_fields = b.num_fields;
  Numbers<kDim> of_row(dim);
  const float* values = b.values.data<float>();
  const int32_t* position = b.positions.data<int32_t>();
  const int32_t* const last = position + b.positions.size() - 1;
  const int32_t padding = b.padding;
  const float *tower = gradient.tower, *d_tower = gradient.d_tower, *d_total = gradient.d_total;
  const int64_t num_numbers = gradient.num_numbers;
  for (int64_t example = 0; example < b.batch; ++example) {
    const float twice = 2 * gradient.d_squares[example], d_linear = gradient.d_linear[example];
    for (int64_t field = 0; field < num_fields; ++field, tower += dim, d_tower += dim) {
      const Field& of = b.layout[field];
      const int32_t* const end = position + of.size;
      const float scale = of.pooling == kSum ? 1 : b.scale(field, of.size - std::count(position, end, padding));
      SIMD for (int64_t j = 0; j < dim; ++j) {
        of_row[j] = over_positions ? d_tower[j] * scale + d_total[j]
                                   : (d_tower[j] + d_total[j] + twice * tower[j]) * scale;
      }
      for (; position < end; ++position) {
        Prefetch(gradient.d_values + *std::min(position + kAhead, last) * width, width);
        if (*position == padding) continue;
        float* __restrict d_row = gradient.d_values + *position * width;
        d_row[0] += d_linear;
        SIMD for (int64_t j = 0; j < dim; ++j) d_row[j + 1] += of_row[j];
        if (over_positions) {
          const float* __restrict row = values + *position * width;
          SIMD for (int64_t j = 0; j < dim; ++j) d_row[j + 1] += twice * row[j + 1];
        }
      }
    }
    d_total += dim, tower += num_numbers, d_tower += num_numbers;
  }
}

void ComputeInteractGradient(void* kernel, TF_OpKernelContext* context) {
  Call call(context);
  Batch b(call);
  Tensor tower = call.input(6), d_linear = call.input(7), d_total = call.input(8), d_squares = call.input(9);
  Tensor d_tower = call.input(10);
  if (!call.ok()) return;
  const int64_t num_numbers = tower.rank() == 2 ? tower.dim(1) - b.num_fields * b.dim : -1;
  const bool fits = num_numbers >= 0 && tower.has_shape({b.batch, tower.dim(1)}) &&
                    d_tower.has_shape({b.batch, tower.dim(1)}) && d_linear.has_shape({b.batch, 1}) &&
                    d_total.has_shape({b.batch, b.dim}) && d_squares.has_shape({b.batch, 1});
  if (!call.require(fits, "a gradient has another shape")) return;
  Tensor output = call.output(0, TF_FLOAT, {b.rows.size(), b.width});
  if (!call.ok()) return;
  float* d_values = output.data<float>();
  std::fill(d_values, d_values + output.size(), 0.0f);
  const Gradient gradient{tower.data<float>(),     d_linear.data<float>(), d_total.data<float>(),
                          d_squares.data<float>(), d_tower.data<float>(),  d_values, num_numbers};
  Specialize(*static_cast<Interact*>(kernel), b.dim, [&](auto dim, auto over_positions) {
    InteractGradientOfExamples<decltype(dim)::value, decltype(over_positions)::value>(b, gradient);
  });
}

// ---- CtrStepAdam, CtrStepAdagrad, CtrStepRowwiseAdagrad -------------------------------------------------------------
//
// One step of some rows, each of which is given once, in place; the rules are those of `trainer/optimizers.py`. Row 0
// stays as it is.

struct Rule {
  float to_m = 0, to_v = 0, epsilon = 0;
};

template <bool has_moments>
void* CreateRule(TF_OpKernelConstruction* construction) {
  TF_Status* status = TF_NewStatus();
  auto* rule = new Rule;
  TF_OpKernelConstruction_GetAttrFloat(construction, "epsilon", &rule->epsilon, status);
  if (has_moments) {
    TF_OpKernelConstruction_GetAttrFloat(construction, "to_m", &rule->to_m, status);
    TF_OpKernelConstruction_GetAttrFloat(construction, "to_v", &rule->to_v, status);
  }
  TF_DeleteStatus(status);
  return rule;
}

// Calls `step(rule, rate, row, gradient, width)` for each row; the row's values, [width], have its slots behind them, of
// `slots_width(width)` numbers in all. `width` is a constant where `WithDim` has one.
template <typename SlotsWidth, typename Step>
void StepRows(void* kernel, TF_OpKernelContext* context, const SlotsWidth& slots_width, const Step& step) {
  Call call(context);
  Tensor table = call.table(), rows = call.input(2), gradient = call.input(3), rate_input = call.input(4);
  if (!call.ok() || !call.require(rate_input.size() == 1, "one rate is needed")) return;
  const Rule rule = *static_cast<Rule*>(kernel);
  const float rate = *rate_input.data<float>();
  const bool fits = gradient.rank() == 2 && gradient.dim(0) == rows.size();
  if (!call.require(fits, "a gradient for each row is needed")) return;
  const int64_t width = gradient.dim(1), stride = table.dim(1), size = rows.size();
  const int64_t stored_width = width + slots_width(width);
  if (!call.require(stored_width <= stride, "the table has other slots") || !AreRows(call, rows, table.dim(0))) return;
  const int32_t* row = rows.data<int32_t>();
  const float* gradients = gradient.data<float>();
  float* stored = table.data<float>();
  WithDim(width - 1, [&](auto dim) {
    const int64_t known_width = dim ? dim + 1 : width;
    // Asked for in one go: a processor waits for one page's address beside another's, but not beyond what it has of the
    // instructions at a time, which is two or three rows' steps. Nor does it wait for many more than 16 lines at a time.
    const int64_t num_lines = (stored_width + 15) / 16, block = std::max<int64_t>(kAhead / num_lines, 2);
    for (int64_t i = 0, asked = 0; i < size; ++i) {
      if (i == asked - block || i == 0) {
        for (const int64_t end = std::min(i + 2 * block, size); asked < end; ++asked) {
          PrefetchRow(stored + row[asked] * stride, stored_width);
        }
      }
      if (row[i] != 0) step(rule, rate, stored + row[i] * stride, gradients + i * known_width, known_width);
    }
  });
}

void StepAdam(void* kernel, TF_OpKernelContext* context) {
  const auto slots_width = [](int64_t width) { return 2 * width; };
  StepRows(kernel, context, slots_width, [](const Rule& rule, float rate, float* w, const float* g, int64_t width) {
    float *m = w + width, *v = m + width;
    SIMD for (int64_t j = 0; j < width; ++j) {
      m[j] += (g[j] - m[j]) * rule.to_m;
      v[j] += (g[j] * g[j] - v[j]) * rule.to_v;
      w[j] -= rate * m[j] / (std::sqrt(v[j]) + rule.epsilon);
    }
  });
}

void StepAdagrad(void* kernel, TF_OpKernelContext* context) {
  const auto slots_width = [](int64_t width) { return width; };
  StepRows(kernel, context, slots_width, [](const Rule& rule, float rate, float* w, const float* g, int64_t width) {
    float* a = w + width;
    SIMD for (int64_t j = 0; j < width; ++j) {
      a[j] += g[j] * g[j];
      w[j] -= rate * g[j] / std::sqrt(a[j] + rule.epsilon);
    }
  });
}

void StepRowwiseAdagrad(void* kernel, TF_OpKernelContext* context) {
  const auto slots_width = [](int64_t) { return 1; };
  StepRows(kernel, context, slots_width, [](const Rule& rule, float rate, float* w, const float* g, int64_t width) {
    float squares = 0, &a = w[width];
    for (int64_t j = 0; j < width; ++j) squares += g[j] * g[j];
    a += squares / width;
    const float length = rate / std::sqrt(a + rule.epsilon);
    SIMD for (int64_t j = 0; j < width; ++j) w[j] -= length * g[j];
  });
}

// ---- Registration ---------------------------------------------------------------------------------------------------

void Register(const char* name, std::initializer_list<const char*> inputs, std::initializer_list<const char*> outputs,
              std::initializer_list<const char*> attributes, bool is_stateful, Create create, Compute compute,
              Delete destroy) {
  TF_Status* status = TF_NewStatus();
  TF_OpDefinitionBuilder* definition = TF_NewOpDefinitionBuilder(name);
  for (const char* input : inputs) TF_OpDefinitionBuilderAddInput(definition, input);
  for (const char* output : outputs) TF_OpDefinitionBuilderAddOutput(definition, output);
  for (const char* attribute : attributes) TF_OpDefinitionBuilderAddAttr(definition, attribute);
  if (is_stateful) TF_OpDefinitionBuilderSetIsStateful(definition, true);  // it takes no other value
  // The shapes are set in Python.
  TF_OpDefinitionBuilderSetShapeInferenceFunction(definition, TF_ShapeInferenceContextSetUnknownShape);
  TF_RegisterOpDefinition(definition, status);
  if (TF_GetCode(status) == 0) {
    TF_RegisterKernelBuilder(name, TF_NewKernelBuilder(name, "CPU", create, compute, destroy), status);
  }
  if (TF_GetCode(status) != 0) {
    std::fprintf(stderr, "trainer/row_kernels.cc: %s is not registered: %s\n", name, TF_Message(status));
  }
  TF_DeleteStatus(status);
}

void* CreateNothing(TF_OpKernelConstruction*) {
  static char nothing;
  return &nothing;
}
void DeleteNothing(void*) {}
void DeleteInteract(void* kernel) { delete static_cast<Interact*>(kernel); }
void DeleteRule(void* kernel) { delete static_cast<Rule*>(kernel); }

__attribute__((constructor)) void RegisterAll() {
  void* tensorflow = dlopen("libtensorflow_framework.so.2", RTLD_LAZY | RTLD_NOLOAD);
  if (!tensorflow) {
    std::fprintf(stderr, "trainer/row_kernels.cc: TensorFlow 2 is not loaded\n");
    return;
  }
#define FIND(result, name, arguments)                                                      \
  name = reinterpret_cast<decltype(name)>(dlsym(tensorflow, #name));                       \
  if (!name) {                                                                             \
    std::fprintf(stderr, "trainer/row_kernels.cc: this TensorFlow has no %s\n", #name);    \
    return;                                                                                \
  }
  FUNCTIONS(FIND)
#undef FIND
  Register("CtrPlanRows", {"ids: int64", "offsets: int32"}, {"rows: int32", "position: int32"}, {}, false,
           CreateNothing, PlanRows, DeleteNothing);
  Register("CtrReadRows", {"table: resource", "stored: float", "rows: int32", "width: int32"}, {"values: float"}, {},
           true, CreateNothing, ReadRows, DeleteNothing);
  Register("CtrInteract",
           {"values: float", "rows: int32", "position: int32", "sizes: int32", "hashes: int32", "poolings: int32",
            "numbers: float"},
           {"linear: float", "total: float", "squares: float", "tower: float"}, {"over_positions: bool"}, false,
           CreateInteract, ComputeInteract, DeleteInteract);
  Register("CtrInteractGradient",
           {"values: float", "rows: int32", "position: int32", "sizes: int32", "hashes: int32", "poolings: int32",
            "tower: float", "d_linear: float", "d_total: float", "d_squares: float", "d_tower: float"},
           {"d_values: float"}, {"over_positions: bool"}, false, CreateInteract, ComputeInteractGradient,
           DeleteInteract);
  const auto step_inputs = {"table: resource", "stored: float", "rows: int32", "gradient: float", "rate: float"};
  Register("CtrStepAdam", step_inputs, {}, {"to_m: float", "to_v: float", "epsilon: float"}, true, CreateRule<true>,
           StepAdam, DeleteRule);
  Register("CtrStepAdagrad", step_inputs, {}, {"epsilon: float"}, true, CreateRule<false>, StepAdagrad, DeleteRule);
  Register("CtrStepRowwiseAdagrad", step_inputs, {}, {"epsilon: float"}, true, CreateRule<false>, StepRowwiseAdagrad,
           DeleteRule);
}

}  // namespace
