// What a file that takes another one's name keeps of it, and needs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nibble/base/bytes.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/base/config.hpp>
#include <nibble/base/error.hpp>
#include <system_error>

namespace nibble::inline NIBBLE_ABI {

// Gives a new file the permissions of the one that it is going to replace, if there is one: what
// others could not read they cannot read afterwards. To be called before anything is written.
inline void keep_permissions(const std::filesystem::path& of, const std::filesystem::path& to) {
  namespace fs = std::filesystem;
  std::error_code failed;
  const fs::file_status status = fs::status(of, failed);
  if (!fs::is_regular_file(status)) return;
  fs::permissions(to, status.permissions() & fs::perms::all, failed);
  if (failed) {
    throw error(
        errc::io,
        concat("the permissions of the file that it replaces cannot be kept: ", failed.message()),
        {.file = of.string()});
  }
}

// Throws error(io) where the disk says that it has no room for a new file of so many bytes beside
// `path`. What is replaced there stays until the new one is whole.
inline void check_room(const std::filesystem::path& path, std::uint64_t bytes) {
  namespace fs = std::filesystem;
  std::error_code unknown;
  const fs::path place = fs::weakly_canonical(path, unknown);  // a link may lead to another disk
  const fs::space_info room = fs::space(place.parent_path(), unknown);
  // some file systems do not know
  if (unknown || room.capacity == 0 || room.available >= bytes) return;
  throw error(errc::io,
              concat("the file cannot be written: it takes ", to_text(bytes), ", and the disk has ",
                     to_text(std::uint64_t{room.available}), " left"),
              {.file = path.string()});
}

}  // namespace nibble::inline NIBBLE_ABI
