/* cuda_kernel.cpp - stands in for MLX's function that makes a custom CUDA kernel: the program's own
 * definition is used instead of libmlx's. A kernel's source is compiled as C++ and runs in the
 * emulator, when MLX evaluates what it computes. */
#include "emulator.hpp"

#include <mlx/mlx.h>
#include <mlx/primitives.h>

#include <algorithm>
#include <cstdlib>
#include <dlfcn.h>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>

namespace mx = mlx::core;
using strings = std::vector<std::string>;

struct compiled {
    void (*start)(void **);
    char *shared, *shared_end;
};

static std::map<std::string, int> launches;

int launches_of(const std::string &name) {
    int n = 0;
    for (const auto &[full_name, count] : launches)
        if (full_name.starts_with("mlxbench_" + name)) n += count;
    return n;
}

/* ---- compiling ---- */

const std::string &temporary_folder() {
    static const struct folder {
        std::string path = (std::filesystem::temp_directory_path() / "mlxbench-cuda-XXXXXX").string();
        folder() {
            if (!mkdtemp(path.data())) throw std::runtime_error("cannot make a temporary folder");
        }
        ~folder() {
            std::error_code ignored;
            std::filesystem::remove_all(path, ignored);
        }
    } made;
    return made.path;
}

static std::string type_name(mx::Dtype type) {
    if (type == mx::bfloat16) return "__nv_bfloat16";
    if (type == mx::float16) return "__half";
    if (type == mx::float32) return "float";
    if (type == mx::uint32) return "uint32_t";
    throw std::invalid_argument("a kernel's argument has a type that the emulator does not know");
}

/* A kernel's parameters, as MLX lists them. */
struct parameters {
    strings types, names;

    void add(const std::string &type, const std::string &name) {
        types.push_back(type);
        names.push_back(name);
    }
};

/* MLX's source around the body, and around that a function with the arguments in a list. Shared
 * memory is all that the library has in its .bss: the linker says where that is. */
static std::string whole_source(const parameters &p, const std::string &header, const std::string &body) {
    std::string listed, passed;
    for (size_t i = 0; i < p.names.size(); i++) {
        std::string end = i + 1 < p.names.size() ? ", " : "";
        listed += p.types[i] + " " + p.names[i] + end;
        passed += "*static_cast<" + p.types[i] + "*>(a[" + std::to_string(i) + "])" + end;
    }
    return "#include \"device.hpp\"\n" + header + "\nstatic void kernel(" + listed + ") {\n" + body +
           "\n}\n#define OUT extern \"C\" __attribute__((visibility(\"default\")))\n"
           "extern \"C\" __attribute__((visibility(\"hidden\"))) char __bss_start[], _end[];\n"
           "OUT char *shared() { return __bss_start; }\n"
           "OUT char *shared_end() { return _end; }\n"
           "OUT void start(void **a) { kernel(" +
           passed + "); }\n";
}

static compiled compile(const std::string &name, const std::string &source) {
    std::string path = temporary_folder() + "/" + name;
    std::ofstream(path + ".cpp") << source;
    std::string command = CXX " -std=c++20 -O1 -w -shared -fPIC -fvisibility=hidden -fno-strict-aliasing "
                              "-fno-exceptions -ffp-contract=off -I '" CUDA_FOLDER "' -o '" +
                          path + ".so' '" + path + ".cpp'";
    if (std::system(command.c_str())) throw std::runtime_error("kernel " + name + " does not compile");
    void *library = dlopen((path + ".so").c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) throw std::runtime_error(dlerror());
    compiled made;
    char *(*begin)(), *(*end)();
    *reinterpret_cast<void **>(&made.start) = dlsym(library, "start");
    *reinterpret_cast<void **>(&begin) = dlsym(library, "shared");
    *reinterpret_cast<void **>(&end) = dlsym(library, "shared_end");
    made.shared = begin();
    made.shared_end = end();
    return made;
}

/* ---- running ---- */

/* The address of an evaluated array. The engine asks MLX not to copy: a kernel gets it as it
 * lies. */
static void *data_of(mx::array &x, const std::string &name, bool only_shape) {
    if (!only_shape && !x.flags().row_contiguous) throw std::runtime_error(name + " is not contiguous");
    return x.data<char>();
}

/* An output's memory, all NaNs: values that a kernel forgets to write are found. */
static void *unwritten(mx::array &out) {
    if (out.itemsize() != 2) throw std::runtime_error("an output that is not of 16 bits");
    out.set_data(mx::allocator::malloc(out.nbytes()));
    std::fill_n(out.data<uint16_t>(), out.size(), uint16_t{0x7fff}); /* a NaN in F16 and in BF16 */
    return out.data<char>();
}

/* An argument list: pointers to pointers, and to shapes. */
struct arguments {
    std::vector<std::unique_ptr<void *>> pointers{};
    std::vector<std::unique_ptr<int[]>> shapes{};
    std::vector<void *> list{};

    void add_pointer(void *x) {
        pointers.push_back(std::make_unique<void *>(x));
        list.push_back(pointers.back().get());
    }
    void add_shape(const mx::Shape &x) {
        shapes.push_back(std::make_unique<int[]>(10));
        std::copy(x.begin(), x.end(), shapes.back().get());
        list.push_back(shapes.back().get());
    }
};

namespace {
class emulated_kernel {
    std::string name, header, body;
    strings inputs, outputs;

    /* MLX gives a kernel those shapes that its source mentions. */
    bool has_shape(const std::string &input) const {
        return body.find(input + "_shape") != std::string::npos;
    }

    const compiled &code(const std::vector<mx::array> &x, const std::vector<mx::array> &out) const {
        static std::map<std::string, compiled> all;
        auto found = all.find(name);
        if (found != all.end()) return found->second;
        parameters p;
        for (size_t i = 0; i < inputs.size(); i++) {
            p.add("const " + type_name(x[i].dtype()) + "*", inputs[i]);
            if (has_shape(inputs[i])) p.add("const Shape", inputs[i] + "_shape");
        }
        for (size_t i = 0; i < outputs.size(); i++) p.add(type_name(out[i].dtype()) + "*", outputs[i]);
        return all.emplace(name, compile(name, whole_source(p, header, body))).first->second;
    }

  public:
    emulated_kernel(const std::string &name_, const strings &inputs_, const strings &outputs_,
                    const std::string &body_, const std::string &header_)
        : name(name_), header(header_), body(body_), inputs(inputs_), outputs(outputs_) {
    }

    void run(std::vector<mx::array> x, std::vector<mx::array> &out, std::tuple<int, int, int> grid,
             std::tuple<int, int, int> threads) const {
        if (x.size() != inputs.size() || out.size() != outputs.size())
            throw std::runtime_error(name + " has another number of arguments than names");
        const compiled &c = code(x, out);
        arguments a;
        for (size_t i = 0; i < x.size(); i++) {
            a.add_pointer(data_of(x[i], inputs[i], has_shape(inputs[i]) && x[i].data_size() == 1));
            if (has_shape(inputs[i])) a.add_shape(x[i].shape());
        }
        for (mx::array &y : out) a.add_pointer(unwritten(y));
        auto [width, height, depth] = grid; /* in threads */
        unsigned n = static_cast<unsigned>(std::get<0>(threads)), w = static_cast<unsigned>(width);
        if (w % n || std::get<1>(threads) != 1 || depth != 1)
            throw std::runtime_error(name + " has a grid that the emulator does not know");
        emulate(c.start, a.list.data(), {w / n, static_cast<unsigned>(height), n}, c.shared,
                static_cast<size_t>(c.shared_end - c.shared));
        launches[name]++;
    }
};

/* As MLX's: kernel, grid and stream. */
class emulated_start : public mx::Primitive {
    emulated_kernel kernel;
    std::tuple<int, int, int> grid, threads;

  public:
    emulated_start(const emulated_kernel &kernel_, std::tuple<int, int, int> grid_,
                   std::tuple<int, int, int> threads_)
        : Primitive(mx::default_stream(mx::Device::cpu)), kernel(kernel_), grid(grid_), threads(threads_) {
    }
    /* What is to be read is still being computed by the stream's own thread. */
    void eval_cpu(const std::vector<mx::array> &inputs, std::vector<mx::array> &outputs) override {
        mx::synchronize(stream());
        kernel.run(inputs, outputs, grid, threads);
    }
    void eval_gpu(const std::vector<mx::array> &, std::vector<mx::array> &) override {
        throw std::runtime_error("emulated kernels run on the CPU");
    }
    const char *name() const override {
        return "emulated_start";
    }
};
} // namespace

namespace mlx::core::fast {
CustomKernelFunction cuda_kernel(const std::string &name, const strings &inputs, const strings &outputs,
                                 const std::string &source, const std::string &header, bool, int) {
    emulated_kernel kernel(name, inputs, outputs, source, header);
    return [kernel](const std::vector<array> &x, const std::vector<Shape> &shapes,
                    const std::vector<Dtype> &types, std::tuple<int, int, int> grid,
                    std::tuple<int, int, int> threads, std::vector<std::pair<std::string, TemplateArg>>,
                    std::optional<float>, bool, StreamOrDevice) {
        return array::make_arrays(shapes, types, std::make_shared<emulated_start>(kernel, grid, threads), x);
    };
}
} // namespace mlx::core::fast
