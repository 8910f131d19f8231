// node generate.mjs pocketgpt_wasm.wasm model.pgpt "Once upon a time" [SEED] [TOKENS]

import { readFileSync } from "node:fs";
import { Model } from "./pocketgpt.mjs";

const [wasm, file, prompt, seed = "0", tokens = "50"] = process.argv.slice(2);
if (prompt === undefined) {
  console.error('usage: node generate.mjs MODULE.wasm MODEL.pgpt "PROMPT" [SEED] [TOKENS]');
  process.exit(2);
}
try {
  const model = await Model.open(readFileSync(wasm), readFileSync(file));
  process.stdout.write(prompt);
  const options = { seed: BigInt(seed), maxNewTokens: Number(tokens) };
  model.generate(prompt, { ...options, write: (piece) => process.stdout.write(piece) || true });
  process.stdout.write("\n");
} catch (error) {
  console.error(`error: ${error.message}`);
  process.exit(1);
}
