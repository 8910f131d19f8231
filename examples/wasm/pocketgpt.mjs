// The module from JavaScript, in a browser as in Node: `src/lib.rs` says what its functions are.

const CACHES = ["f32", "f16", "q8"];

/** A model in a module of its own: `await Model.open(wasm, file)`, both as bytes. */
export class Model {
  #exports;
  #write = () => true;
  #busy = false;
  #thrown = null;

  static async open(wasm, file) {
    const model = new Model();
    const text = (start, length) => {
      const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
      // An exception must not pass through the module, which would never return from its call.
      try {
        return model.#write(decoder.decode(model.#bytes(start, length))) === false ? 0 : 1;
      } catch (error) {
        model.#thrown ??= { error };
        return 0;
      }
    };
    const { instance } = await WebAssembly.instantiate(wasm, { pocketgpt: { text } });
    model.#exports = instance.exports;
    model.#bytes(model.#exports.file_memory(file.length), file.length).set(file);
    model.vocabSize = model.#done(model.#exports.open());
    model.positions = model.#done(model.#exports.positions());
    return model;
  }

  /** Text that follows the prompt; `write` gets it piece by piece and ends it by returning false. */
  generate(prompt, { maxNewTokens = 50, seed = 0, write = () => true } = {}) {
    const length = this.#input(new TextEncoder().encode(prompt));
    let text = "";
    this.#write = (piece) => {
      text += piece;
      return write(piece);
    };
    this.#busy = true;
    this.#thrown = null;
    try {
      this.#done(this.#exports.generate(length, maxNewTokens, BigInt(seed)));
    } finally {
      this.#busy = false;
    }
    if (this.#thrown) throw this.#thrown.error;
    return text;
  }

  /** Logits behind each of the ids, one row after the other; the last `oneByOne` are read singly. */
  logits(ids, { kv = "f32", oneByOne = 0 } = {}) {
    this.#input(new Uint8Array(Uint32Array.from(ids).buffer));
    const together = ids.length - oneByOne;
    const count = this.#done(this.#exports.feed(together, oneByOne, CACHES.indexOf(kv)));
    const start = this.#exports.logits() >>> 0;
    return new Float32Array(this.#exports.memory.buffer, start, count).slice();
  }

  // The memory's buffer is another one after it has grown, so it is asked for each time. Addresses
  // come as signed numbers.
  #bytes(start, length) {
    return new Uint8Array(this.#exports.memory.buffer, start >>> 0, length);
  }

  // What every call begins with.
  #input(bytes) {
    if (this.#busy) throw new Error("the model is writing: call it when generate has returned");
    this.#bytes(this.#exports.input(bytes.length), bytes.length).set(bytes);
    return bytes.length;
  }

  #done(number) {
    if (number >= 0) return number;
    const { message, message_len } = this.#exports;
    throw new Error(new TextDecoder().decode(this.#bytes(message(), message_len())));
  }
}
