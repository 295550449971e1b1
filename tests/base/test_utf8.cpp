#include <nibble/base/utf8.hpp>

#include "catch.hpp"

TEST_CASE("as_utf8: what is well-formed stays, other bytes are written out") {
  using nibble::as_utf8;
  for (const char* text : {"", "a/b.txt", "caf\xc3\xa9", "\xf0\x9f\x98\x80", "line\nend"}) {
    CHECK(as_utf8(text) == text);
  }
  CHECK(as_utf8("caf\xe9.txt") == "caf\\xe9.txt");
  CHECK(as_utf8("\xff\xfe") == "\\xff\\xfe");
  CHECK(as_utf8("\xf0\x9f\x98") == "\\xf0\\x9f\\x98");                      // cut off
  CHECK(as_utf8("\xed\xa0\x80 \xc0\xaf") == "\\xed\\xa0\\x80 \\xc0\\xaf");  // surrogate, overlong
}
