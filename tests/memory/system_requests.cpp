// What a system may refuse besides memory of the heap: mappings and threads. These functions take
// the place of the system's for the whole program, also for libraries that it is linked to.
#include <dlfcn.h>
#include <pthread.h>
#include <sys/mman.h>

#include <atomic>
#include <cerrno>

#include "every_failure.hpp"

namespace test {

std::atomic<std::int64_t> live_mapped_bytes = 0;

}  // namespace test

namespace {

// Mappings end with a page, and may be given back in parts.
std::int64_t pages_of(std::size_t bytes) {
  constexpr std::size_t page = 4096;
  return static_cast<std::int64_t>((bytes + page - 1) / page * page);
}

// The definition that would be used without the one here: the system's, or a sanitizer's.
template <typename Function>
Function next_of(const char* name, std::atomic<Function>& known) {
  Function found = known.load();
  if (found == nullptr) known = found = reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
  return found;
}

std::atomic<void* (*)(void*, std::size_t, int, int, int, off_t)> next_mmap;
std::atomic<int (*)(void*, std::size_t)> next_munmap;
std::atomic<int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*)> next_create;

}  // namespace

extern "C" {

void* mmap(void* at, std::size_t bytes, int protection, int flags, int file, off_t from) noexcept {
  if (test::request_fails()) {
    errno = ENOMEM;
    return MAP_FAILED;
  }
  void* const made = next_of("mmap", next_mmap)(at, bytes, protection, flags, file, from);
  if (made != MAP_FAILED) test::live_mapped_bytes += pages_of(bytes);
  return made;
}

int munmap(void* at, std::size_t bytes) noexcept {
  const int result = next_of("munmap", next_munmap)(at, bytes);
  if (result == 0) test::live_mapped_bytes -= pages_of(bytes);
  return result;
}

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*work)(void*),
                   void* argument) noexcept {
  if (test::request_fails()) return EAGAIN;
  return next_of("pthread_create", next_create)(thread, attributes, work, argument);
}
}
