// What a program that writes a first corpus defines; main() is in write_seeds.cpp.
#pragma once

#include <filesystem>

// The folder exists. Throws what cannot be helped.
void write_seeds(const std::filesystem::path& folder);
