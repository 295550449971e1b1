// Tiles of MFMA (CDNA), WMMA (RDNA 3 and 4), or of dot products of the lanes; see gpu/tile.hpp.
#pragma once

#if defined(__gfx908__) || defined(__gfx90a__) || defined(__gfx940__) || defined(__gfx941__) || \
    defined(__gfx942__) || defined(__gfx950__)
#include "hip/tile_mfma.hpp"
#elif defined(__GFX11__) || defined(__GFX12__)
#include "hip/tile_wmma.hpp"
#else
#include "hip/tile_plain.hpp"
#endif
