#include "synth_words.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <nibble/base/utf8.hpp>
#include <span>

namespace synth {
namespace {

constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max();

std::uint64_t pair_key(std::uint32_t left, std::uint32_t right) {
  return std::uint64_t{left} << 32 | right;
}

}  // namespace

merge_builder::merge_builder(alphabet letters, std::size_t count)
    : letters_(letters), count_(count) {
  tokens_.reserve(count);
  numbers_.reserve(count);
  ranks_.reserve(count);
  if (letters == alphabet::characters) return;
  for (int byte = 0; byte < 256; ++byte) token_of(std::string(1, static_cast<char>(byte)));
}

// The number of this token, which is made if there is room; `none` if there is not.
std::uint32_t merge_builder::token_of(std::string text) {
  const auto number = static_cast<std::uint32_t>(tokens_.size());
  if (full()) {
    const auto found = numbers_.find(text);
    return found == numbers_.end() ? none : found->second;
  }
  const auto [at, added] = numbers_.emplace(std::move(text), number);
  if (added) tokens_.push_back(at->first);
  return at->second;
}

std::uint32_t merge_builder::rank_at(std::size_t i) const {
  if (i + 1 >= symbols_.size()) return none;
  const auto found = ranks_.find(pair_key(symbols_[i].token, symbols_[i + 1].token));
  return found == ranks_.end() ? none : found->second;
}

bool merge_builder::split(std::string_view word) {
  symbols_.clear();
  for (std::size_t i = 0; i < word.size();) {
    std::size_t size = 1;
    std::uint32_t token = static_cast<std::uint8_t>(word[i]);
    if (letters_ == alphabet::characters) {
      const auto c = nibble::decode_utf8(word, i);
      if (c.state != nibble::utf8_state::valid) return false;
      size = c.size;
      token = token_of(std::string(word.substr(i, size)));
      if (token == none) return false;
    }
    symbols_.push_back({token, none});
    i += size;
  }
  for (std::size_t i = 0; i < symbols_.size(); ++i) symbols_[i].rank = rank_at(i);
  return true;
}

// Puts one symbol in the place of the two from i on.
void merge_builder::replace(std::size_t i, std::uint32_t merged) {
  symbols_[i].token = merged;
  symbols_.erase(symbols_.begin() + static_cast<std::ptrdiff_t>(i) + 1);
  symbols_[i].rank = rank_at(i);
  if (i > 0) symbols_[i - 1].rank = rank_at(i - 1);
}

// Applies the best merge that the symbols allow; false if there is none.
bool merge_builder::merge_best() {
  const auto best = std::min_element(symbols_.begin(), symbols_.end(),
                                     [](symbol a, symbol b) { return a.rank < b.rank; });
  if (best == symbols_.end() || best->rank == none) return false;
  replace(static_cast<std::size_t>(best - symbols_.begin()), merged_[best->rank]);
  return true;
}

void merge_builder::join_first() {
  const std::uint32_t left = symbols_[0].token, right = symbols_[1].token;
  const std::uint32_t merged = token_of(tokens_[left] + tokens_[right]);
  if (merged == none) return symbols_.clear();
  ranks_.emplace(pair_key(left, right), static_cast<std::uint32_t>(merges_.size()));
  merges_.emplace_back(left, right);
  merged_.push_back(merged);
  replace(0, merged);
}

void merge_builder::add(std::string_view word) {
  if (!split(word)) return;
  while (merge_best()) {
  }
  while (symbols_.size() > 1) join_first();
}

namespace {

using words = std::span<const std::string_view>;

constexpr std::string_view common[] = {
    "the",      "of",      "and",         "to",        "in",        "a",         "is",
    "that",     "for",     "it",          "was",       "on",        "with",      "as",
    "be",       "at",      "by",          "this",      "had",       "not",       "are",
    "but",      "from",    "or",          "have",      "an",        "they",      "which",
    "one",      "you",     "were",        "all",       "her",       "she",       "there",
    "would",    "their",   "we",          "him",       "been",      "has",       "when",
    "who",      "will",    "no",          "more",      "if",        "out",       "so",
    "up",       "said",    "what",        "its",       "about",     "than",      "into",
    "them",     "can",     "only",        "other",     "time",      "new",       "some",
    "could",    "these",   "two",         "may",       "first",     "then",      "do",
    "any",      "like",    "my",          "now",       "over",      "such",      "our",
    "man",      "me",      "even",        "most",      "made",      "after",     "also",
    "well",     "did",     "many",        "before",    "must",      "years",     "through",
    "back",     "much",    "where",       "your",      "way",       "down",      "should",
    "because",  "long",    "each",        "just",      "state",     "people",    "those",
    "too",      "how",     "little",      "good",      "make",      "very",      "year",
    "world",    "still",   "see",         "own",       "work",      "men",       "day",
    "get",      "here",    "old",         "life",      "both",      "between",   "being",
    "under",    "three",   "never",       "know",      "same",      "last",      "another",
    "while",    "us",      "off",         "might",     "great",     "states",    "go",
    "come",     "since",   "against",     "right",     "came",      "take",      "used",
    "himself",  "few",     "house",       "use",       "place",     "during",    "high",
    "without",  "again",   "home",        "around",    "small",     "however",   "found",
    "part",     "school",  "thought",     "went",      "say",       "once",      "general",
    "upon",     "war",     "every",       "left",      "until",     "always",    "away",
    "set",      "thing",   "hand",        "eyes",      "water",     "head",      "light",
    "night",    "door",    "room",        "young",     "woman",     "girl",      "boy",
    "child",    "mother",  "father",      "friend",    "name",      "word",      "line",
    "number",   "point",   "group",       "problem",   "system",    "program",   "question",
    "answer",   "company", "country",     "city",      "story",     "family",    "government",
    "case",     "week",    "month",       "money",     "book",      "eye",       "job",
    "business", "issue",   "side",        "kind",      "power",     "hour",      "game",
    "end",      "member",  "law",         "car",       "community", "team",      "minute",
    "idea",     "body",    "information", "nothing",   "ago",       "lead",      "social",
    "whether",  "watch",   "together",    "follow",    "parent",    "stop",      "face",
    "create",   "speak",   "read",        "level",     "allow",     "office",    "spend",
    "grow",     "open",    "walk",        "win",       "teach",     "offer",     "remember",
    "consider", "appear",  "buy",         "serve",     "die",       "send",      "build",
    "stay",     "fall",    "cut",         "reach",     "kill",      "raise",     "big",
    "large",    "next",    "early",       "important", "public",    "bad",       "able",
    "human",    "local",   "late",        "hard",      "major",     "better",    "strong",
    "possible", "whole",   "free",        "real",      "best",      "true",      "full",
    "special",  "easy",    "clear",       "recent",    "certain",   "personal",  "red",
    "white",    "black",   "green",       "blue",      "difficult", "available", "likely",
    "short",    "single",  "current",     "wrong",     "past",      "foreign",   "fine",
    "common",   "poor",    "natural",     "similar",   "hot",       "dead",      "central",
    "happy",    "serious", "ready",       "simple",    "physical",  "general",   "call",
    "try",      "ask",     "need",        "feel",      "become",    "leave",     "put",
    "mean",     "keep",    "let",         "begin",     "seem",      "help",      "talk",
    "turn",     "start",   "show",        "hear",      "play",      "run",       "move",
    "live",     "believe", "hold",        "bring",     "happen",    "write",     "provide",
    "sit",      "stand",   "lose",        "pay",       "meet",      "include",   "continue",
    "learn",    "change",  "understand",  "think",     "look",      "want",      "give",
    "find",     "tell",    "love",        "sun",       "sea",       "sky",       "tree",
    "dog",      "cat",     "bird",        "fish",      "horse",     "fire",      "air",
    "earth",    "wind",    "rain",        "snow",      "river",     "road",      "street",
    "table",    "chair",   "window",      "paper",     "music",     "food",      "bread",
    "milk",     "morning", "evening",     "today",     "tomorrow",  "yesterday", "quick",
    "brown",    "fox",     "lazy",        "language",  "model",     "data",      "value",
    "type",     "return",  "function",    "string",    "class",     "public",    "static",
    "const",    "void",    "true",        "false",     "null",      "file",      "test",
    "error",    "list",    "index",       "size",      "code"};

constexpr std::string_view endings[] = {
    "s",    "ed",   "ing",   "er",   "ly",   "es",   "en",  "al",   "ion",   "tion", "ation",
    "ment", "ness", "able",  "ible", "ful",  "less", "ous", "ive",  "ity",   "ist",  "ism",
    "ers",  "ings", "ure",   "ance", "ence", "ant",  "ent", "ary",  "ory",   "ic",   "ical",
    "ize",  "ized", "izing", "ship", "ward", "age",  "ate", "ated", "ating", "ator", "y"};

constexpr std::string_view marks[] = {
    "\n\n", "  ", "    ", "        ", "\n\n\n", "\t\t", ".\n", ",\n", ";\n",  ":\n",  "..",
    "...",  "--", "---",  "==",       "!=",     "<=",   ">=",  "->",  "=>",   "::",   "()",
    "();",  "[]", "{}",   "//",       "/*",     "*/",   "**",  "##",  "\"\"", "''",   "\",",
    "\".",  "),", ").",   " (",       " \"",    " '",   " -",  " =",  " +",   " {",   " [",
    "'s",   "'t", "'re",  "'ve",      "'ll",    "'d",   "'m",  "!\n", "?\n",  "\"\n", " ="};

constexpr std::string_view beginnings[] = {"",    "re",  "un",   "in",    "con",   "de",  "pre",
                                           "dis", "pro", "ex",   "sub",   "com",   "per", "trans",
                                           "mis", "en",  "over", "inter", "under", "out"};

constexpr std::string_view roots[] = {
    "act",    "art",     "bell",   "bind",   "bold",  "bound", "break",  "bridge", "bright",
    "burn",   "call",    "cap",    "care",   "carry", "cast",  "cede",   "ceive",  "cent",
    "chance", "charge",  "claim",  "clar",   "clear", "close", "cook",   "cord",   "count",
    "course", "cover",   "cred",   "cur",    "cycle", "dict",  "draw",   "dream",  "dress",
    "drive",  "duct",    "face",   "fact",   "fair",  "fect",  "fer",    "field",  "figure",
    "fin",    "firm",    "fix",    "flat",   "flect", "flow",  "fold",   "force",  "form",
    "fort",   "found",   "fract",  "fresh",  "front", "fund",  "fuse",   "gain",   "gard",
    "gather", "gener",   "gest",   "glad",   "grade", "graph", "grass",  "ground", "guard",
    "hand",   "hang",    "harm",   "heart",  "heat",  "hold",  "join",   "joy",    "judge",
    "jump",   "just",    "kind",   "labor",  "land",  "lect",  "lift",   "light",  "limit",
    "load",   "lock",    "log",    "look",   "mand",  "mark",  "market", "master", "mat",
    "mean",   "measure", "ment",   "mind",   "miss",  "mit",   "mount",  "move",   "nation",
    "nect",   "note",    "number", "order",  "pack",  "paint", "part",   "pass",   "path",
    "pend",   "pick",    "place",  "plan",   "plant", "play",  "plete",  "ply",    "point",
    "port",   "pose",    "post",   "press",  "print", "prove", "quest",  "quire",  "rest",
    "rupt",   "sand",    "scribe", "script", "sect",  "sent",  "serve",  "shine",  "side",
    "sign",   "sist",    "smile",  "smooth", "soft",  "solve", "song",   "sort",   "sound",
    "spect",  "spire",   "spring", "stand",  "stone", "storm", "stream", "strict", "struct",
    "sult",   "sume",    "sure",   "taste",  "tect",  "tend",  "tain",   "test",   "text",
    "thank",  "thread",  "tract",  "train",  "treat", "trust", "turn",   "type",   "valid",
    "value",  "vent",    "vers",   "view",   "vise",  "voice", "wander", "warm",   "wash",
    "watch",  "whisper", "wild",   "wonder", "wood",  "work",  "worth",  "yield"};

constexpr std::string_view onsets[] = {
    "t", "s",  "b",  "c",  "d",  "f",  "g",  "h",  "l",  "m",  "n",  "p",  "r",  "w",  "v",  "k",
    "j", "st", "ch", "sh", "th", "pr", "tr", "br", "cr", "gr", "pl", "bl", "cl", "fl", "sp", ""};
constexpr std::string_view nuclei[] = {"e", "a", "i", "o", "u", "ea", "ou", "ai", "ee", "oo"};
constexpr std::string_view codas[] = {"",   "r",  "n",  "l",  "s",  "t", "d",  "m",
                                      "nd", "st", "nt", "ck", "ng", "p", "rt", "ll"};

// Stops as soon as nobody wants more.
class giver {
 public:
  explicit giver(const std::function<bool(std::string_view)>& take) : take_(take) {}

  bool wanted() const { return wanted_; }
  void give(std::string_view word) { wanted_ = wanted_ && take_(word); }

  // " word" and "word", or one of them.
  void both(const std::string& word) {
    give(" " + word);
    give(word);
  }

  static std::string capital(std::string word) {
    if (!word.empty() && word[0] >= 'a' && word[0] <= 'z')
      word[0] = static_cast<char>(word[0] - 32);
    return word;
  }

 private:
  const std::function<bool(std::string_view)>& take_;
  bool wanted_ = true;
};

void give_english(giver& to) {
  for (const std::string_view word : common) to.give(" " + std::string(word));
  for (const std::string_view text : marks) to.give(text);
  for (const std::string_view text : endings) to.give(text);
  for (const std::string_view word : common) {
    to.give(word);
    to.both(giver::capital(std::string(word)));
  }
}

void give_numbers(giver& to, int digits) {
  for (int i = 0; i < 100 && digits > 1; ++i) {
    to.give(std::string{static_cast<char>('0' + i / 10), static_cast<char>('0' + i % 10)});
  }
  for (int i = 0; i < 1000 && digits > 2; ++i) {
    const std::string text = std::to_string(1000 + i);
    to.give(std::string_view(text).substr(1));
  }
}

void give_characters(giver& to, char32_t first, char32_t last) {
  for (char32_t c = first; c <= last && to.wanted(); ++c) {
    std::string text;
    nibble::append_utf8(text, c);
    to.give(text);
  }
}

std::vector<std::string> make_syllables() {
  std::vector<std::string> out;
  for (const std::string_view coda : codas) {
    for (const std::string_view nucleus : nuclei) {
      for (const std::string_view onset : onsets) {
        out.push_back(std::string(onset).append(nucleus).append(coda));
      }
    }
  }
  return out;
}

// Every root with every beginning and ending: " un" + "form" + "able".
void give_derived(giver& to, bool capitals) {
  for (const std::string_view root : roots) {
    for (const std::string_view beginning : beginnings) {
      for (std::size_t i = 0; i <= std::size(endings) && to.wanted(); ++i) {
        std::string word = std::string(beginning).append(root);
        if (i > 0) word += endings[i - 1];
        to.give(" " + (capitals ? giver::capital(word) : word));
      }
    }
  }
}

}  // namespace

void for_each_word(int digits, const std::function<bool(std::string_view)>& take) {
  giver to(take);
  give_english(to);
  give_numbers(to, digits);
  give_characters(to, 0xa0, 0x17f);   // Latin
  give_characters(to, 0x391, 0x3c9);  // Greek
  give_characters(to, 0x410, 0x44f);  // Cyrillic
  const auto syllables = make_syllables();
  for (const std::string& syllable : syllables) to.both(syllable);
  for (const std::string_view root : roots) to.both(std::string(root));
  give_derived(to, false);
  give_characters(to, 0x5d0, 0x5ea);    // Hebrew
  give_characters(to, 0x621, 0x64a);    // Arabic
  give_characters(to, 0x3041, 0x30ff);  // Japanese
  give_characters(to, 0x4e00, 0x9fa5);  // Chinese
  for (const std::string& syllable : syllables) to.both(giver::capital(syllable));
  give_derived(to, true);
  give_characters(to, 0xac00, 0xd7a3);  // Korean
  for (const std::string& second : syllables) {
    for (const std::string& first : syllables) {
      if (!to.wanted()) return;
      to.give(" " + first + second);
    }
  }
}

}  // namespace synth
