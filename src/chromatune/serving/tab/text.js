// Instructions in anybody's words ⇒ what the model gets of them, what is left out, and its tokens.
// The same as pipeline/instructions.py and pipeline/truncation.py, to the character.

import { Tokenizer } from "@huggingface/tokenizers";

const SPACE = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"; // Python's \s
const BREAK = new RegExp(`[,;:!?…\\n\\r()\\[\\]{}"“”„«»|/+&]|\\.+(?=[${SPACE}]|$)|[${SPACE}][-–—]+[${SPACE}]`, "u");
const WORD = new RegExp(`[^${SPACE}'’\`´_\\-]+`, "gu");
const ENDS = new RegExp(`^[${SPACE}]+|[${SPACE}]+$`, "gu");
const ALPHANUMERIC = /^[\p{L}\p{N}]/u;
const UNPRINTABLE = /(?! )[\p{C}\p{Z}]/u;
const IGNORED = "ignored";
const LONGEST_SHOWN = 30; // characters of a prompt in a warning
const MOST_NAMED = 5; // words or clauses in a warning

/** Returns the instruction with an attribute after it: `("colorize it", ", {} colors", "warm")`. */
export function withAttribute(prompt, form, word) {
  return prompt + form.replace("{}", () => word);
}

/** Reads instructions for a model that was taught few words. */
export class Instructions {
  /** @param tables what `instruction_tables()` of pipeline/instructions.py returns. */
  constructor(tables) {
    this.hueForms = tables.hue_forms;
    this.attributeForms = tables.attribute_forms;
    this.hues = tables.hues;
    this.default = tables.default;
    this.prompts = tables.prompts; // the longest first
    this.table = {
      folds: new Map(Object.entries(tables.folds)),
      meanings: new Map(Object.entries(tables.meanings)),
      roles: new Map(Object.entries(tables.roles).map(([role, words]) => [role, new Set(words)])),
      besideLooks: new Set(tables.beside_looks),
      looks: new Set(tables.looks),
      hues: new Set(tables.hues),
    };
  }

  /**
   * Returns what a model that was taught `words` gets of an instruction.
   *
   * @param {string} instruction in any words.
   * @param {Set<string>} words that the model was taught, in lower case.
   * @param {string} base instruction to put looks after, where they have none of their own.
   * @returns {{text: string, leftOut: string[]}} taught words, "" where nothing is left; and what is left out, as it
   *   was written.
   */
  read(instruction, words, base = this.default) {
    const head = this.#taughtHead(instruction, words, base);
    const clauses = this.#clauses(instruction.slice(head.length), words);
    const beginsAsTaught = head || (clauses.length ? clauses[0].isBase : !trimmed(instruction));
    if (beginsAsTaught && clauses.every((each) => each.isAsTaught)) return { text: instruction, leftOut: [] };
    const looks = new Set(clauses.flatMap((each) => each.looks));
    const leftOut = [...new Set(clauses.flatMap((each) => each.leftOut))];
    if (!head && !looks.size) return { text: "", leftOut };
    let text = head || base;
    for (const look of looks) {
      text = withAttribute(text, (this.table.hues.has(look) ? this.hueForms : this.attributeForms)[0], look);
    }
    return { text, leftOut };
  }

  /** Returns whether all words of an instruction are among `words`. */
  knows(words, instruction) {
    return instruction.split(BREAK).every((part) => allTaught(wordsOf(part, words, this.table)));
  }

  #taughtHead(instruction, words, base) {
    const letters = [...instruction]; // Python counts code points
    for (const known of [base, ...this.prompts]) {
      const length = [...known].length;
      const head = letters.slice(0, length).join("");
      const isKnown = head && this.#casefold(head) === this.#casefold(known);
      if (isKnown && !ALPHANUMERIC.test(letters[length] ?? "")) {
        return known === base || this.knows(words, head) ? head : "";
      }
    }
    return "";
  }

  #casefold(text) {
    return casefold(text, this.table.folds);
  }

  #clauses(text, words) {
    return text.split(BREAK).flatMap((part) => {
      const found = wordsOf(part, words, this.table);
      return found.length ? atConjunctions(new Clause(part, found, this.table)).flatMap(withTailApart) : [];
    });
  }
}

/** A part of an instruction that is kept or left out as a whole. */
class Clause {
  /** @param words {text, end, isTaught, meaning} each; `end` counts in `source`. */
  constructor(source, words, table) {
    Object.assign(this, { source, words, table, meanings: words.map(({ meaning }) => meaning) });
  }

  part(start, stop) {
    return new Clause(this.source, this.words.slice(start, stop), this.table);
  }

  /** Its part of the instruction, without "and" before it. */
  get text() {
    const first = this.words.find(({ meaning }) => meaning !== "and") ?? this.words.at(-1);
    return this.source.slice(first.end - first.text.length, this.words.at(-1).end);
  }

  get namesLooks() {
    return this.meanings.some((meaning) => this.table.looks.has(meaning));
  }

  /** Whether it says anything beside looks and the words that go with them. */
  get instructs() {
    return this.meanings.some((meaning) => !this.table.besideLooks.has(meaning));
  }

  get leftOut() {
    if (this.#colorsAThing()) return [this.text];
    return this.words.filter(({ meaning }) => !meaning).map(({ text }) => text);
  }

  /** The looks that it gives the whole picture. */
  get looks() {
    return this.leftOut.length ? [] : this.meanings.filter((meaning) => this.table.looks.has(meaning));
  }

  /** Whether it can stay as it is written. */
  get isAsTaught() {
    const names = ({ text }) => this.table.looks.has(casefold(text, this.table.folds));
    return allTaught(this.words) && !this.leftOut.length && !(this.instructs && this.words.some(names));
  }

  get isBase() {
    return this.instructs && this.isAsTaught;
  }

  /** Whether it has looks, and says nothing of what has them. */
  get isBare() {
    const saysMore = this.meanings.includes("") || this.instructs || this.has("scope") || this.has("things");
    return this.namesLooks && !saysMore;
  }

  /** Returns whether a word has a role, see words.toml. */
  has(role) {
    return this.meanings.some((meaning) => this.table.roles.get(role).has(meaning));
  }

  #colorsAThing() {
    if (this.has("things") && (this.namesLooks || this.has("contrast"))) return true;
    const afterArticle = this.meanings.some((meaning, i) => {
      return meaning === "a" && this.table.looks.has(this.meanings[i + 1]);
    });
    return this.namesLooks && (this.meanings.includes("") || (afterArticle && !this.has("scope")));
  }
}

/** Returns the parts around "and"; one whole where a part is a mere look, as in "red and blue dress". */
function atConjunctions(clause) {
  const starts = [0];
  clause.meanings.forEach((meaning, i) => meaning === "and" && i && starts.push(i));
  const parts = [];
  starts.forEach((start, i) => {
    let part = clause.part(start, starts[i + 1] ?? clause.words.length);
    if (parts.length && (part.isBare || parts.at(-1).isBare)) {
      part = new Clause(clause.source, [...parts.pop().words, ...part.words], clause.table);
    }
    parts.push(part);
  });
  return parts;
}

/** Returns a clause without "in warm colors", "with a lot of blue" at its end, and that; a thing keeps its hue. */
function withTailApart(clause) {
  for (let i = 1; i < clause.words.length; i++) {
    if (!["in", "with"].includes(clause.meanings[i])) continue;
    const head = clause.part(0, i),
      tail = clause.part(i);
    if (!tail.namesLooks || !tail.has("scope") || tail.instructs || tail.has("things")) continue;
    const ofAThing = head.meanings.includes("") || (head.has("things") && !head.instructs);
    const namesHue = tail.meanings.some((meaning) => clause.table.hues.has(meaning));
    return ofAThing && namesHue ? [clause] : [head, tail];
  }
  return [clause];
}

function wordsOf(text, words, { folds, meanings, looks }) {
  return [...text.matchAll(WORD)].map(({ 0: word, index }) => {
    const written = casefold(word, folds);
    let meaning = meanings.get(folded(written)) ?? "";
    if (!looks.has(meaning) && words.has(written)) meaning = written;
    else if (meaning !== IGNORED && !words.has(meaning)) meaning = "";
    return { text: word, end: index + word.length, isTaught: words.has(written), meaning };
  });
}

function allTaught(words) {
  return words.every(({ isTaught }) => isTaught);
}

/** Python's `str.casefold`: letter by letter, and the letters whose folding is not their lower case from a table. */
function casefold(text, folds) {
  return Array.from(text, (letter) => folds.get(letter) ?? letter.toLowerCase()).join("");
}

/** Returns a word that is casefolded without accents. */
function folded(word) {
  return Array.from(word.normalize("NFKD"))
    .filter((letter) => !isCombining(letter))
    .join("");
}

/** Whether a letter has a combining class: it changes places with one of a higher (240) or lower class (1). */
function isCombining(letter) {
  if (letter < "\u0300") return false;
  const before = `\u0345${letter}`,
    after = `${letter}\u0334`;
  return before.normalize("NFD") !== before || after.normalize("NFD") !== after;
}

function trimmed(text) {
  return text.replace(ENDS, "");
}

/** What the model reads of prompts: words that it was taught, as tokens. */
export class PromptReader {
  #tokenizer;

  /**
   * @param {Instructions} instructions
   * @param {{prompt: string, words: string[]|null}} info of the model's chromatune.json.
   * @param tokenizer its tokenizer.json.
   * @param config its tokenizer_config.json.
   */
  constructor(instructions, info, tokenizer, config) {
    this.instructions = instructions;
    this.prompt = info.prompt;
    this.words = info.words ? new Set(info.words) : null;
    this.length = config.model_max_length;
    this.#tokenizer = new Tokenizer(tokenizer, config);
    this.padding = this.#tokenizer.token_to_id(config.pad_token.content ?? config.pad_token);
  }

  /**
   * Returns the prompts that the text encoder gets, and what is left out of them: where nothing is left, the prompt is
   * the model's own, the negative prompt none.
   *
   * @returns {{text: string, negative: string, leftOut: string[]}}
   */
  read(prompt, negative = "") {
    if (this.words === null) return { text: prompt, negative, leftOut: [] };
    const read = this.instructions.read(prompt, this.words, this.prompt);
    const readNegative = this.instructions.read(negative, this.words, this.prompt);
    const text = trimmed(prompt) && !read.text ? this.prompt : read.text;
    return { text, negative: readNegative.text, leftOut: [...new Set([...read.leftOut, ...readNegative.leftOut])] };
  }

  /** Returns a line on what is left out of the instructions, and one for each that is longer than can be read. */
  warnings(prompt, negative = "") {
    const read = this.read(prompt, negative);
    const lines = [];
    if (read.leftOut.length) {
      const named = read.leftOut
        .slice(0, MOST_NAMED)
        .map((part) => `“${printable(cut(part))}”`)
        .join(", ");
      const more = read.leftOut.length - MOST_NAMED;
      lines.push(
        `left out of the instruction, as the model was not taught it: ${named}${more > 0 ? ` and ${more} more` : ""}; ` +
          "to color one thing, paint it (the brush of chromatune serve, or --hints)",
      );
    }
    for (const [name, text] of [
      ["prompt", read.text],
      ["negative prompt", read.negative],
    ]) {
      const rest = this.truncatedPart(text);
      if (!rest) continue;
      const from = quoted(printable(cut(rest)));
      lines.push(`the ${name} is longer than ${this.length} tokens, and is not read from ${from} on; shorten it`);
    }
    return lines;
  }

  /** Returns the tokens of a prompt: BigInt64Array(length), padded, and cut with the mark at its end kept. */
  ids(prompt) {
    let found = this.#encode(prompt).ids;
    if (found.length > this.length) found = [...found.slice(0, this.length - 1), found.at(-1)];
    const row = new BigInt64Array(this.length).fill(BigInt(this.padding));
    found.forEach((id, place) => (row[place] = BigInt(id)));
    return row;
  }

  /** Returns the part of a prompt beyond the length, which is cut off; "" if all of it is read. */
  truncatedPart(prompt) {
    const { ids, tokens } = this.#encode(prompt);
    if (ids.length <= this.length) return "";
    // The library gives no places; but tokens leave out nothing but space, and have a letter for each byte
    const read = tokens.slice(1, this.length - 1).map((token) => token.replace(/<\/w>$/, ""));
    const bytes = read.reduce((sum, token) => sum + [...token].length, 0);
    const letters = [...prompt];
    let end = 0;
    while (end < letters.length && bytesWithoutSpace(letters.slice(0, end).join("")) < bytes) end++;
    return trimmed(letters.slice(end).join(""));
  }

  #encode(prompt) {
    return this.#tokenizer.encode(normalized(prompt));
  }
}

/**
 * As the tokenizer would, but lower case letter by letter, for the end of a Greek word changes nothing there. A byte
 * order mark is space in JavaScript's patterns, and a sign in the tokenizer's.
 */
function normalized(prompt) {
  return Array.from(prompt.normalize("NFC"), (letter) => letter.toLowerCase())
    .join("")
    .replace(/[\s\x85]+/gu, " ");
}

function bytesWithoutSpace(text) {
  return new TextEncoder().encode(normalized(text).replaceAll(" ", "")).length;
}

function cut(text) {
  const letters = [...text];
  return letters.length <= LONGEST_SHOWN ? text : `${letters.slice(0, LONGEST_SHOWN).join("")}…`;
}

/** Returns a text, escaped where a line break or control character would spoil a message of one line. */
function printable(text) {
  return UNPRINTABLE.test(text) ? quoted(text) : text;
}

/** Python's `repr` of a text. */
function quoted(text) {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const escape = (letter) => {
    if (letter === quote || letter === "\\") return `\\${letter}`;
    if (!UNPRINTABLE.test(letter)) return letter;
    const short = { "\n": "\\n", "\r": "\\r", "\t": "\\t" }[letter];
    const hex = letter.codePointAt(0).toString(16);
    const long = hex.length > 4 ? `\\U${hex.padStart(8, "0")}` : `\\u${hex.padStart(4, "0")}`;
    return short ?? (hex.length > 2 ? long : `\\x${hex.padStart(2, "0")}`);
  };
  return quote + Array.from(text, escape).join("") + quote;
}
