# A Homebrew formula. Never run: url and sha256 are those of a release that is not there yet.
class Mlxbench < Formula
  desc "Benchmark of large language model inference, for MLX's models"
  homepage "https://example.invalid/mlxbench"
  url "https://example.invalid/mlxbench-0.1.0.tar.gz"
  sha256 "0000000000000000000000000000000000000000000000000000000000000000"
  license "MIT"

  depends_on "cmake" => :build
  depends_on "pkgconf" => :build
  depends_on "cjson"
  depends_on "pcre2"
  depends_on "utf8proc"

  on_macos do
    on_arm do
      depends_on "mlx"
    end
  end

  def install
    args = std_cmake_args
    # Homebrew's MLX, whatever its version: the engine is built for it, and again (revision) when it changes.
    args << "-DMLX_ROOT=#{formula_opt("mlx")}" if OS.mac? && Hardware::CPU.arm?
    system "cmake", "-S", ".", "-B", "build", *args
    system "cmake", "--build", "build"
    system "cmake", "--install", "build"
  end

  def formula_opt(name)
    Formula[name].opt_prefix
  end

  test do
    assert_match "engine cpu", shell_output("#{bin}/mlxbench hwinfo")
    system bin/"mlxbench", "--model", "synthetic:tiny-llama-13m-4bit", "--prompt-tokens", "random",
           "-np", "16", "-n", "4", "--repeats", "1", "--engine", "cpu"
  end
end
