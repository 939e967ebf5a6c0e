// What a participant must remember: the replies it gave, by message id, and the effects it had, by idempotency-key.
//
// Here one line of a journal is one transaction: effect and reply are written together, and synced, before anything is
// published. In production these are two tables in the database in which the work is done, and the line is its
// transaction; see README.md.

import { closeSync, existsSync, fsyncSync, ftruncateSync, openSync, readFileSync, writeSync } from "node:fs";

export class Memory {
  #answers = new Map(); // message id -> {hash, reply}
  #effects = new Map(); // idempotency-key -> {reply, effect} or {tombstone: true}
  #file;

  constructor(path) {
    const written = existsSync(path) ? readFileSync(path) : Buffer.alloc(0);
    const whole = written.lastIndexOf(0x0a) + 1; // a line cut short by a crash was never acted upon
    this.#file = openSync(path, "a");
    ftruncateSync(this.#file, whole);
    for (const line of written.subarray(0, whole).toString("utf8").split("\n").filter(Boolean)) {
      this.#take(JSON.parse(line));
    }
  }

  answerTo(messageId) {
    return this.#answers.get(messageId);
  }

  under(key) {
    return key === undefined ? undefined : this.#effects.get(key);
  }

  // One transaction: {messageId, hash, reply, effects: {key: what stands there from now on}}.
  commit(entry) {
    writeSync(this.#file, `${JSON.stringify(entry)}\n`);
    fsyncSync(this.#file);
    this.#take(entry);
  }

  close() {
    closeSync(this.#file);
  }

  #take({ messageId, hash, reply, effects }) {
    this.#answers.set(messageId, { hash, reply });
    for (const [key, effect] of Object.entries(effects)) this.#effects.set(key, effect);
  }
}
