// Everything. Lower floors can be included one by one.
#pragma once

#include <nibble/base/bytes.hpp>
#include <nibble/base/config.hpp>
#include <nibble/base/error.hpp>
#include <nibble/device/cpu.hpp>
#include <nibble/device/gpu.hpp>
#include <nibble/device/probe.hpp>
#include <nibble/device/speed.hpp>
#include <nibble/device/stream.hpp>
#include <nibble/engine/generation.hpp>
#include <nibble/engine/model.hpp>
#include <nibble/engine/sampler.hpp>
#include <nibble/engine/scheduler.hpp>
#include <nibble/engine/session.hpp>
#include <nibble/gguf/file.hpp>
#include <nibble/kv/page_pool.hpp>
#include <nibble/plan/placement.hpp>
#include <nibble/quantise/file.hpp>
#include <nibble/quantise/rows.hpp>
#include <nibble/text/chat_template.hpp>
#include <nibble/text/tokenizer.hpp>
