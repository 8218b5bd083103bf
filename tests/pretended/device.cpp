// A pretended accelerator: its memory is the host's, its kernels are the CPU's.
//
// It is PyTorch's PrivateUse1 backend, and it holds programs to what a real device asks of them:
//   - memory is NaN until it is written;
//   - an operation that mixes tensors of the device and of the host raises, numbers excepted;
//   - every operation that a device would be given as a kernel is counted;
//   - every wait of the host for the device is counted and told to a listener;
//   - float64 can be switched off, as on Apple's GPUs.
// The functions at the end of the file are called through ctypes: no header of Python is needed.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_local_scalar_dense_native.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_cpu_dispatch.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_cpu_dispatch.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <atomic>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>

namespace {
using at::Tensor;
using std::string;
constexpr auto DEVICE = c10::DeviceType::PrivateUse1;

// ---------------------------------------------------------------------------------------- Counting

std::mutex lock;
std::map<string, long> counted;  // operations by name
void (*listener)(const char*) = nullptr;
std::atomic<bool> has_float64{true};
thread_local int depth = 0;  // above 0: a kernel is at work, and what it calls is its own affair

struct Within {
  Within() { ++depth; }
  ~Within() { --depth; }
};

void operation(const string& name) {
  if (depth) return;
  std::lock_guard<std::mutex> held(lock);
  ++counted[name];
}

// The listener is of Python and takes the GIL, so the lock must not be held here.
void wait(const string& why) {
  if (!depth && listener) listener(why.c_str());
}

void check_dtype(c10::ScalarType type) {
  TORCH_CHECK_TYPE(has_float64 || depth || (type != at::kDouble && type != at::kComplexDouble),
                   "the pretended device has no float64");
}

// ------------------------------------------------------------------------------------------ Memory

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t size) override {
    void* start = nullptr;
    if (size) {
      TORCH_CHECK(posix_memalign(&start, 64, size) == 0, "the pretended device is out of memory");
      memset(start, 0xff, size);  // NaN in every floating-point format
    }
    return {start, start, &std::free, c10::Device(DEVICE, 0)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &std::free; }
  void copy_data(void* to, const void* from, std::size_t size) const override {
    memcpy(to, from, size);
  }
};
Memory memory;

// The same memory as the host sees it.
Tensor on_host(const Tensor& tensor) {
  if (!tensor.defined() || tensor.is_cpu()) return tensor;
  return at::from_blob(const_cast<void*>(tensor.const_data_ptr()), tensor.sizes(),
                       tensor.strides(), tensor.options().device(at::kCPU));
}

Tensor on_device(const Tensor& tensor) {
  if (!tensor.defined()) return tensor;
  Within kernel;
  Tensor result = at::detail::empty_strided_generic(
      tensor.sizes(), tensor.strides(), &memory, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
      tensor.scalar_type());
  on_host(result).copy_(tensor);
  return result;
}

// ----------------------------------------------------------------------- What PyTorch asks a device

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return DEVICE; }
  c10::Device exchangeDevice(c10::Device) const override { return getDevice(); }
  c10::Device getDevice() const override { return {DEVICE, 0}; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device device) const override { return usual(device); }
  c10::Stream getNewStream(c10::Device device, int) const override { return usual(device); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return stream; }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void record(void**, const c10::Stream&, const c10::DeviceIndex,
              const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream&) const override {}

  static c10::Stream usual(c10::Device device) {
    return c10::Stream(c10::Stream::DEFAULT, device);
  }
};

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(c10::DeviceIndex) const override {}
  bool isPinnedPtr(const void*) const override { return false; }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    static auto generator = at::detail::createCPUGenerator(0);
    return generator;
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t size) const override {
    auto& changed = const_cast<c10::Storage&>(storage);
    c10::DataPtr start = memory.allocate(size);
    memcpy(start.get(), storage.data(), std::min<size_t>(storage.nbytes(), size));
    changed.set_data_ptr_noswap(std::move(start));
    changed.set_nbytes(size);
  }
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);
const bool registered = [] {
  c10::SetAllocator(DEVICE, &memory);
  at::RegisterPrivateUse1HooksInterface(new Hooks());
  return true;
}();

// ---------------------------------------------------------------------------- Tensors, views, copies

Tensor empty(c10::IntArrayRef size, std::optional<c10::ScalarType> dtype,
             std::optional<c10::Layout>, std::optional<c10::Device>, std::optional<bool>,
             std::optional<c10::MemoryFormat> format) {
  auto type = c10::dtype_or_default(dtype);
  check_dtype(type);
  return at::detail::empty_generic(
      size, &memory, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), type, format);
}

Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride,
                     std::optional<c10::ScalarType> dtype, std::optional<c10::Layout>,
                     std::optional<c10::Device>, std::optional<bool>) {
  auto type = c10::dtype_or_default(dtype);
  check_dtype(type);
  return at::detail::empty_strided_generic(
      size, stride, &memory, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), type);
}

// As CUDA: a copy between host and device waits, unless a copy to the device is asked not to.
Tensor copy_from(const Tensor& from, const Tensor& to, bool non_blocking) {
  if (to.is_cpu()) wait("copy to the host");
  else if (!from.is_cpu()) operation("aten::copy_");
  else if (!non_blocking) wait("copy to the device");
  Within kernel;
  on_host(to).copy_(on_host(from));
  return to;
}

Tensor copy_from_and_resize(const Tensor& from, const Tensor& to) {
  at::native::resize_(to, from.sizes(), std::nullopt);
  const_cast<Tensor&>(to).copy_(from);
  return to;
}

at::Scalar local_scalar(const Tensor& tensor) {
  wait("number for the host");
  return at::native::_local_scalar_dense_cpu(tensor);
}

Tensor as_strided(const Tensor& tensor, c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
                  std::optional<c10::SymInt> offset) {
  return at::cpu::as_strided_symint(tensor, size, stride, offset);
}
const Tensor& resize(const Tensor& tensor, c10::SymIntArrayRef size,
                     std::optional<at::MemoryFormat> format) {
  return at::native::resize_(tensor, C10_AS_INTARRAYREF_SLOW(size), format);
}
Tensor reshape_alias(const Tensor& tensor, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  return at::native::_reshape_alias(
      tensor, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride));
}
Tensor view(const Tensor& tensor, c10::SymIntArrayRef size) {
  return at::native::view(tensor, C10_AS_INTARRAYREF_SLOW(size));
}
Tensor& set_tensor(Tensor& tensor, const Tensor& other) {
  return at::native::set_tensor_(tensor, other);
}
Tensor& set_storage(Tensor& tensor, at::Storage storage) {
  return at::native::set_(tensor, storage);
}
Tensor& set_part(Tensor& tensor, at::Storage storage, int64_t offset, c10::IntArrayRef size,
                 c10::IntArrayRef stride) {
  return at::cpu::set_(tensor, storage, offset, size, stride);
}

// -------------------------------------------------------------------------------- All other kernels

bool begins(const string& name, std::initializer_list<const char*> with) {
  for (auto each : with)
    if (name.rfind(string("aten::") + each, 0) == 0) return true;
  return false;
}

struct Arguments {
  bool device = false, host = false, mask = false;

  void see(const Tensor& tensor) {
    if (!tensor.defined()) return;
    if (!tensor.is_cpu()) device = true;
    else if (tensor.dim()) host = true;
  }
  explicit Arguments(c10::ArrayRef<c10::IValue> values) {
    for (auto& value : values) {
      if (value.isTensor()) see(value.toTensor());
      else if (value.isTensorList())
        for (const Tensor& each : value.toTensorList()) see(each);
      else if (value.isOptionalTensorList())
        for (std::optional<Tensor> each : value.toOptionalTensorList())
          if (each) {
            see(*each);
            mask = mask || each->scalar_type() == at::kBool;
          }
    }
  }
};

void check_call(const string& name, const Arguments& given) {
  bool index = begins(name, {"index.", "index_put", "_index_put"});
  TORCH_CHECK(!given.host || !given.device || index,
              "Expected all tensors to be on the same device, but ", name,
              " was given tensors of the pretended device and of the host");
  // The host has to know how large the result is, or whether a solver has found one.
  if ((given.mask && begins(name, {"index_put", "_index_put"})) ||
      begins(name, {"nonzero", "masked_select", "_unique", "unique", "equal",
                                  "repeat_interleave.Tensor", "bincount"}))
    wait("size of a result");
  if (begins(name, {"_linalg_eigh", "_linalg_svd", "linalg_cholesky", "linalg_inv", "_linalg_eig",
                    "linalg_lstsq", "_linalg_solve", "_linalg_check_errors"}))
    wait("solver");
}

void kernel_of_the_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  auto& schema = op.schema();
  auto& named = schema.operator_name();
  if (!depth) {
    string name = named.name + "." + named.overload_name;
    check_call(name, Arguments(torch::jit::last(*stack, schema.arguments().size())));
    operation(named.name);
  }
  {
    Within kernel;
    at::native::cpu_fallback(op, stack);
  }
  if (depth || has_float64) return;
  for (auto& value : torch::jit::last(*stack, schema.returns().size()))
    if (value.isTensor() && value.toTensor().defined() && !value.toTensor().is_cpu())
      check_dtype(value.toTensor().scalar_type());
}

void same_device(const char* name, std::initializer_list<Tensor> tensors) {
  bool device = false, host = false;
  for (auto& each : tensors) (each.is_cpu() ? host : device) = true;
  TORCH_CHECK(!device || !host, "Expected all tensors to be on the same device, but ", name,
              " was given tensors of the pretended device and of the host");
}

// PyTorch has no fallback for convolutions: it asks a backend for these two.
Tensor convolution(const Tensor& x, const Tensor& w, const std::optional<Tensor>& bias,
                   c10::SymIntArrayRef stride, c10::SymIntArrayRef padding,
                   c10::SymIntArrayRef dilation, bool transposed, c10::SymIntArrayRef more,
                   c10::SymInt groups) {
  same_device("convolution", {x, w});
  operation("aten::convolution");
  Within kernel;
  std::optional<Tensor> added;
  if (bias && bias->defined()) added = on_host(*bias);
  return on_device(at::convolution_symint(on_host(x), on_host(w), added, stride, padding, dilation,
                                          transposed, more, groups));
}

std::tuple<Tensor, Tensor, Tensor> convolution_backward(
    const Tensor& gradient, const Tensor& x, const Tensor& w, c10::SymIntArrayRef stride,
    c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation, bool transposed,
    c10::SymIntArrayRef more, c10::SymInt groups, std::array<bool, 3> wanted) {
  same_device("convolution_backward", {gradient, x, w});
  operation("aten::convolution_backward");
  Within kernel;
  auto found = at::convolution_backward_symint(on_host(gradient), on_host(x), on_host(w),
                                               std::nullopt, stride, padding, dilation, transposed,
                                               more, groups, wanted);
  return {on_device(std::get<0>(found)), on_device(std::get<1>(found)),
          on_device(std::get<2>(found))};
}

// It changes the running statistics and its schema does not say so: the fallback would lose them.
std::tuple<Tensor, Tensor, Tensor> batch_norm(
    const Tensor& x, const std::optional<Tensor>& w, const std::optional<Tensor>& bias,
    const std::optional<Tensor>& mean, const std::optional<Tensor>& variance, bool training,
    double momentum, double eps) {
  auto host = [](const std::optional<Tensor>& given) {
    return given ? std::optional<Tensor>(on_host(*given)) : given;
  };
  for (auto& each : {w, bias, mean, variance})
    if (each && each->defined()) same_device("native_batch_norm", {x, *each});
  operation("aten::native_batch_norm");
  Within kernel;
  auto found = at::native_batch_norm(on_host(x), host(w), host(bias), host(mean), host(variance),
                                     training, momentum, eps);
  return {on_device(std::get<0>(found)), on_device(std::get<1>(found)),
          on_device(std::get<2>(found))};
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("as_strided", as_strided);
  m.impl("resize_", resize);
  m.impl("_reshape_alias", reshape_alias);
  m.impl("view", view);
  m.impl("set_.source_Tensor", set_tensor);
  m.impl("set_.source_Storage", set_storage);
  m.impl("set_.source_Storage_storage_offset", set_part);
  m.impl("_copy_from", copy_from);
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("_local_scalar_dense", local_scalar);
  m.impl("native_batch_norm", batch_norm);
  m.impl("convolution_overrideable", convolution);
  m.impl("convolution_backward_overrideable", convolution_backward);
  // Without a kernel of its own PyTorch would take a list of tensors one by one.
  for (auto& each : c10::Dispatcher::singleton().getAllOpNames())
    if (begins(each.name, {"_foreach_"}))
      m.impl(c10::toString(each).c_str(),
             torch::CppFunction::makeFromBoxedFunction<&kernel_of_the_cpu>());
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&kernel_of_the_cpu>());
}
}  // namespace

extern "C" {
void pretended_listen(void (*to)(const char*)) { listener = to; }
void pretended_float64(bool has) { has_float64 = has; }

// Operations so far, "NAME COUNT" a line; the text is this thread's until its next call.
const char* pretended_operations() {
  thread_local string text;
  std::lock_guard<std::mutex> held(lock);
  text.clear();
  for (auto& [name, count] : counted) text += name + " " + std::to_string(count) + "\n";
  return text.c_str();
}
}
