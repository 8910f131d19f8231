// The module computes the committed bits: `node golden.mjs MODULE.wasm FOLDER`, with a folder as
// ci/wasm.sh makes it: the files that the hashes are about, and `text`, what the command line writes.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Model } from "./pocketgpt.mjs";

const PROMPT = "Once upon a time";
const [modulePath, folder] = process.argv.slice(2);
const wasm = readFileSync(modulePath);
const root = new URL("../..", import.meta.url);
const golden = JSON.parse(readFileSync(new URL("tests/data/golden/hashes.json", root)));

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  return crc;
});

/** CRC-32 of the bits of f32 numbers, as hex. */
function hash(numbers) {
  let crc = 0xffffffff;
  for (const byte of new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength)) {
    crc = (crc >>> 8) ^ CRC_TABLE[(crc ^ byte) & 255];
  }
  return ((crc ^ 0xffffffff) >>> 0).toString(16).padStart(8, "0");
}

/** The file of a case, `bundled q8` or `v1-tiny.pgpt`. */
function fileOf(name) {
  const [model, encoding] = name.split(" ");
  if (encoding === undefined) return new URL(`tests/data/format/${name}`, root);
  const names = { bundled: `model-${encoding}.pgpt`, "head-40": `head-40-${encoding}-bare.pgpt` };
  return join(folder, names[model]);
}

const open = async (name) => Model.open(wasm, readFileSync(fileOf(name)));

// As tests/end_to_end/golden_hashes.rs: ids of a fixed sequence, most of them together.
for (const [name, { prefill, decode }] of Object.entries(golden)) {
  const [file, kv] = name.split(" kv ");
  const model = await open(file);
  const length = Math.min(14, model.positions);
  const first = Math.min(11, length - 1);
  const ids = Array.from({ length }, (_, i) => (i * 37 + 11) % model.vocabSize);
  const hashes = (oneByOne) => {
    const logits = model.logits(ids, { kv, oneByOne });
    const end = first * model.vocabSize;
    return { prefill: hash(logits.subarray(0, end)), decode: hash(logits.subarray(end)) };
  };
  assert.deepEqual(hashes(length - first), { prefill, decode }, name);
  // Read as one text, and token by token.
  for (const oneByOne of kv === "q8" ? [0, length] : []) {
    assert.deepEqual(hashes(oneByOne), { prefill, decode }, `${name}, ${oneByOne} one by one`);
  }
}

const model = await open("bundled q8");
const text = PROMPT + model.generate(PROMPT, { seed: 1, maxNewTokens: 40 }) + "\n";
assert.equal(text, readFileSync(join(folder, "text"), "utf8"));

// A text can be ended, and what is wrong has a message.
let pieces = 0;
model.generate(PROMPT, { write: () => ++pieces < 3 });
assert.equal(pieces, 3);
// What write throws comes out of generate, as does a call from inside; the model goes on.
const refuse = () => { throw new RangeError("no more"); };
assert.throws(() => model.generate(PROMPT, { write: refuse }), RangeError);
assert.throws(() => model.generate(PROMPT, { write: () => model.logits([1]) }), /is writing/);
assert.equal(PROMPT + model.generate(PROMPT, { seed: 1, maxNewTokens: 40 }) + "\n", text);
assert.throws(() => model.logits([model.vocabSize]), /vocabulary/);
await assert.rejects(Model.open(wasm, new Uint8Array(200)), /magic|\.pgpt/i);

console.log(`wasm: ${Object.keys(golden).length} golden hashes, and the text of the command line`);
