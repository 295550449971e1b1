#include "device/speed_cache.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <nibble/base/concat.hpp>
#include <nibble/base/fingerprint.hpp>
#include <nibble/formats/list.hpp>
#include <string_view>
#include <system_error>

#include "base/small_file.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

namespace fs = std::filesystem;

#define NIBBLE_TEXT_OF(name) #name
#define NIBBLE_TEXT(name) NIBBLE_TEXT_OF(name)
constexpr const char* abi_name = NIBBLE_TEXT(NIBBLE_ABI);
#undef NIBBLE_TEXT
#undef NIBBLE_TEXT_OF

constexpr std::string_view first_line = "nibble device speed 1";
constexpr std::size_t most_bytes = 64 << 10;  // of a file; those written have some hundred
constexpr int most_lines = 4096;              // of /proc/cpuinfo that are looked at
constexpr std::size_t longest_fact = 200;

class descriptor {
 public:
  explicit descriptor(int number) : number_(number) {}
  descriptor(const descriptor&) = delete;
  descriptor& operator=(const descriptor&) = delete;
  ~descriptor() { close(); }

  explicit operator bool() const { return number_ >= 0; }
  int number() const { return number_; }
  bool close() {
    const bool closed = number_ < 0 || ::close(number_) == 0;
    number_ = -1;
    return closed;
  }

 private:
  int number_;
};

// One line's worth of what the system says.
std::string fact(std::string_view text) {
  const std::size_t begin = std::min(text.find_first_not_of(" \t"), text.size());
  std::string out(text.substr(begin, longest_fact));
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) c = ' ';
  }
  while (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

std::string line_of(const fs::path& path) {
  const std::string text = read_small_file(path, 512);
  return fact(std::string_view(text).substr(0, text.find('\n')));
}

// The processor's name where Linux tells it, or the numbers that stand for it.
std::string processor(const fs::path& root) {
  const std::string text = read_small_file(root / "proc/cpuinfo");
  std::string numbers;
  std::string_view rest = text;
  for (int i = 0; i < most_lines; ++i) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    if (line.empty()) break;
    const std::size_t colon = line.find(':');
    if (colon == line.npos) continue;
    const std::string name = fact(line.substr(0, colon));
    const std::string value = fact(line.substr(colon + 1));
    if (name == "model name" || name == "Model") return value;
    for (const char* part : {"CPU implementer", "CPU variant", "CPU part", "cpu", "uarch"}) {
      if (name == part) numbers += concat(numbers.empty() ? "" : " ", value);
    }
  }
  return numbers.empty() ? "unknown processor" : numbers;
}

std::string driver(device_kind kind, const fs::path& root) {
  if (kind == device_kind::cuda) return line_of(root / "proc/driver/nvidia/version");
  if (kind == device_kind::hip) return line_of(root / "sys/module/amdgpu/version");
  return "";
}

// The shortest text that is read back as the same number.
std::string number(double x) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, x).ptr};
}

// Reads the lines of a file, one expectation after another; fails once and for all.
class line_reader {
 public:
  explicit line_reader(std::string_view text) : text_(text) {}

  bool next() {
    const std::size_t end = text_.find('\n');
    if (end == text_.npos) return false;
    line_ = text_.substr(0, end);
    text_ = text_.substr(end + 1);
    return true;
  }
  std::string_view line() const { return line_; }
  bool at_end() const { return text_.empty(); }
  std::size_t left() const { return text_.size(); }

  std::string_view word() {
    const std::size_t end = std::min(line_.find(' '), line_.size());
    const std::string_view out = line_.substr(0, end);
    line_ = line_.substr(std::min(end + 1, line_.size()));
    return out;
  }
  // A rate or a time that can be; 0 only where that means something.
  bool number(double& x, bool may_be_zero = false) {
    const std::string_view text = word();
    const auto read = std::from_chars(text.data(), text.data() + text.size(), x);
    const bool whole = read.ec == std::errc{} && read.ptr == text.data() + text.size();
    return whole && std::isfinite(x) && (x > 0 || (x == 0 && may_be_zero)) && x < 1e21;
  }

 private:
  std::string_view text_, line_;
};

bool read_line(line_reader& in, device_speed& speed) {
  const std::string_view what = in.word();
  if (what == "step") {
    return in.number(speed.step_seconds) && in.number(speed.step_value_seconds, true);
  }
  if (what == "attend") return in.number(speed.attend_seconds);
  if (what == "run") return in.number(speed.run_seconds);
  if (what == "noise") return in.number(speed.noise);
  if (what == "link") {
    return in.number(speed.link_bytes_per_second, true) && in.number(speed.link_seconds, true);
  }
  if (what == "format") {
    const auto format = find_format(in.word());
    format_speed& s = speed.formats.emplace_back();
    if (format) s.format = *format;
    return format && in.number(s.bytes_per_second) && in.number(s.macs_per_second);
  }
  if (what == "kv") {
    const auto type = find_kv_type(in.word());
    kv_speed& s = speed.kv.emplace_back();
    if (type) s.type = *type;
    return type && in.number(s.bytes_per_second) && in.number(s.macs_per_second) &&
           in.number(s.prompt_macs_per_second);
  }
  return false;
}

// Text of a regular file that is not too long; of anything else nothing, and without waiting.
std::optional<std::string> read_text(const fs::path& path) {
  const descriptor file(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  struct stat about {};
  if (!file || ::fstat(file.number(), &about) != 0 || !S_ISREG(about.st_mode)) return std::nullopt;
  std::string text(most_bytes + 1, '\0');
  std::size_t n = 0;
  while (n < text.size()) {
    const ssize_t read = ::read(file.number(), text.data() + n, text.size() - n);
    if (read < 0) return std::nullopt;
    if (read == 0) break;
    n += static_cast<std::size_t>(read);
  }
  if (n > most_bytes) return std::nullopt;
  text.resize(n);
  return text;
}

bool write_text(int file, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(file, text.data(), text.size());
    if (written <= 0) return false;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

// Whether a speed has all that was asked for.
bool has_all(const device_speed& speed, const speed_plan& plan) {
  const auto has_format = [&](format_id f) {
    return std::any_of(speed.formats.begin(), speed.formats.end(),
                       [&](const format_speed& s) { return s.format == f; });
  };
  const auto has_kv = [&](kv_type t) {
    return std::any_of(speed.kv.begin(), speed.kv.end(),
                       [&](const kv_speed& s) { return s.type == t; });
  };
  return std::all_of(plan.formats.begin(), plan.formats.end(), has_format) &&
         std::all_of(plan.kv_types.begin(), plan.kv_types.end(), has_kv);
}

// Adds what an earlier measurement knows and this one did not ask for.
void add_known(device_speed& speed, const device_speed& before) {
  for (const format_speed& s : before.formats) {
    const auto at = std::find_if(
        speed.formats.begin(), speed.formats.end(),
        [&](const auto& other) { return *format_index(other.format) >= *format_index(s.format); });
    if (at == speed.formats.end() || at->format != s.format) speed.formats.insert(at, s);
  }
  for (const kv_speed& s : before.kv) {
    const auto at = std::find_if(speed.kv.begin(), speed.kv.end(),
                                 [&](const auto& other) { return other.type >= s.type; });
    if (at == speed.kv.end() || at->type != s.type) speed.kv.insert(at, s);
  }
}

}  // namespace

std::string speed_key(const device_info& device, activation_type activations,
                      const fs::path& root) {
  const char* const by = activations == activation_type::int8 ? "int8" : "float";
  std::string key =
      concat("nibble ", NIBBLE_VERSION_MAJOR, '.', NIBBLE_VERSION_MINOR, '.', NIBBLE_VERSION_PATCH,
             ' ', abi_name, "; ", processor(root), "; ", fact(device.id), "; ", fact(device.name),
             "; ", device.threads, " threads; ", device.total_bytes >> 30, " GiB; ", by);
  if (const std::string name = driver(device.kind, root); !name.empty()) key += "; " + name;
  return key;
}

fs::path speed_folder(const fs::path& given) {
  if (!given.empty()) return given;
  if (const char* const own = std::getenv("NIBBLE_CACHE_DIR")) return own;
  // the specification of these folders has relative ones ignored
  const char* const cache = std::getenv("XDG_CACHE_HOME");
  if (cache && fs::path(cache).is_absolute()) return fs::path(cache) / "nibble";
  const char* const home = std::getenv("HOME");
  if (home && fs::path(home).is_absolute()) return fs::path(home) / ".cache" / "nibble";
  return {};
}

fs::path speed_path(const fs::path& folder, const std::string& key) {
  fingerprint name;
  name.add(key);
  return folder / concat("speed-", name.text(), ".txt");
}

std::string speed_to_text(const std::string& key, const device_speed& speed) {
  std::string text = concat(first_line, "\nkey ", key, '\n');
  const auto add = [&](const char* what, double x) { text += concat(what, ' ', number(x), '\n'); };
  text += concat("step ", number(speed.step_seconds), ' ', number(speed.step_value_seconds), '\n');
  add("attend", speed.attend_seconds);
  add("run", speed.run_seconds);
  add("noise", speed.noise);
  text +=
      concat("link ", number(speed.link_bytes_per_second), ' ', number(speed.link_seconds), '\n');
  for (const format_speed& s : speed.formats) {
    text += concat("format ", format_name(s.format), ' ', number(s.bytes_per_second), ' ',
                   number(s.macs_per_second), '\n');
  }
  for (const kv_speed& s : speed.kv) {
    text += concat("kv ", info_of(s.type).name, ' ', number(s.bytes_per_second), ' ',
                   number(s.macs_per_second), ' ', number(s.prompt_macs_per_second), '\n');
  }
  fingerprint all;
  all.add(text);
  return text + concat("end ", all.text(), '\n');
}

std::optional<device_speed> speed_from_text(const std::string& text, const std::string& key) {
  line_reader in(text);
  if (!in.next() || in.line() != first_line) return std::nullopt;
  if (!in.next() || in.line() != concat("key ", key)) return std::nullopt;
  device_speed speed;
  for (std::size_t left = in.left(); in.next(); left = in.left()) {
    if (!in.line().starts_with("end ")) {
      if (!read_line(in, speed)) return std::nullopt;
      continue;
    }
    fingerprint all;
    all.add(std::string_view(text).substr(0, text.size() - left));
    const bool whole = in.at_end() && in.line() == concat("end ", all.text());
    const bool useful = !speed.formats.empty() && !speed.kv.empty() && speed.step_seconds > 0 &&
                        speed.attend_seconds > 0 && speed.run_seconds > 0;
    if (!whole || !useful) return std::nullopt;
    speed.measured = true;
    return speed;
  }
  return std::nullopt;
}

std::optional<device_speed> load_speed(const fs::path& folder, const std::string& key) {
  if (folder.empty()) return std::nullopt;
  const auto text = read_text(speed_path(folder, key));
  return text ? speed_from_text(*text, key) : std::nullopt;
}

void store_speed(const fs::path& folder, const std::string& key, const device_speed& speed) {
  if (folder.empty()) return;
  std::error_code failed;
  fs::create_directories(folder, failed);
  const fs::path path = speed_path(folder, key);
  const std::string text = speed_to_text(key, speed);
  // a name of its own for each writer
  std::string made = path.string() + ".XXXXXX";
  descriptor file(::mkstemp(made.data()));
  if (!file) return;
  const bool written = write_text(file.number(), text);
  if (file.close() && written && ::rename(made.c_str(), path.c_str()) == 0) return;
  ::unlink(made.c_str());
}

device_speed find_speed(const device_info& device,
                        const std::function<std::unique_ptr<backend>()>& open,
                        const speed_options& options) {
  speed_plan plan = options.plan;
  if (plan.formats.empty()) plan.formats.assign(usual_formats().begin(), usual_formats().end());
  const fs::path folder = options.cache ? speed_folder(options.folder) : fs::path();
  const std::string key = speed_key(device, options.activations);
  const auto known = options.anew ? std::nullopt : load_speed(folder, key);
  const bool quiet = known && known->noise <= options.most_noise;
  if (known && (!options.measure || (quiet && has_all(*known, plan)))) return *known;
  if (!options.measure) return speed_of(device.kind, typical_sheet(device));
  device_speed speed = measure_speed(*open(), plan);
  if (quiet) add_known(speed, *known);
  store_speed(folder, key, speed);
  return speed;
}

}  // namespace nibble::inline NIBBLE_ABI
