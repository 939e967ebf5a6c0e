// The participant's side of the wire contract (docs/wire-contract.md): from a command to the reply that answers it.

import { createHash, randomUUID } from "node:crypto";

const MAX_BODY = 1024 * 1024;

export class Malformed extends Error {}

// A delivery of amqplib as a command.
export function read({ content, fields, properties }) {
  const headers = properties.headers ?? {};
  const name = properties.type || fields.routingKey;
  if (!properties.messageId) throw new Malformed("no message_id");
  if (properties.contentType && !properties.contentType.startsWith("application/json")) {
    throw new Malformed(`content_type ${properties.contentType}`);
  }
  if (Number(headers["schema-version"] || 1) !== 1) throw new Malformed(`${name} version ${headers["schema-version"]}`);
  return {
    messageId: properties.messageId,
    name,
    body: bodyOf(content),
    hash: createHash("sha256").update(content).digest("hex"),
    key: headers["idempotency-key"] || properties.messageId,
    compensates: headers.compensates || undefined,
    correlationId: properties.correlationId,
    replyTo: properties.replyTo,
  };
}

function bodyOf(content) {
  if (content.length > MAX_BODY) throw new Malformed(`a body of ${content.length} bytes`);
  let body;
  try {
    body = JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(content));
  } catch (error) {
    throw new Malformed(`no JSON in UTF-8: ${error.message}`);
  }
  if (body === null || typeof body !== "object" || Array.isArray(body)) throw new Malformed("the body is no object");
  if (typeof body.order_id !== "string") throw new Malformed("no order_id");
  return body;
}

// The reply to a command: {id, name, body as text}, or undefined when there is none to give.
export function answer(command, handlers, memory) {
  const before = memory.answerTo(command.messageId);
  if (before) {
    // 1. We know this message id: the same bytes again.
    if (before.hash !== command.hash) throw new Malformed(`message_id ${command.messageId} was used for another body`);
    return before.reply;
  }
  const handler = handlers[command.name];
  if (!handler) throw new Malformed(`no handler for ${command.name}`);

  const known = memory.under(command.key);
  if (known?.tombstone) return undefined; // 3. It was undone before it came.
  if (known) {
    // 2. A new attempt of what was done: the same answer, under an id of its own.
    const reply = { ...known.reply, id: randomUUID() };
    memory.commit({ messageId: command.messageId, hash: command.hash, reply, effects: {} });
    return reply;
  }

  // 4. and 5. Do it; an undo finds what to take back by `compensates`, or leaves a tombstone there.
  const found = memory.under(command.compensates);
  const result = handler(command.body, command.key, found?.effect);
  const reply = { id: randomUUID(), name: result.reply, body: JSON.stringify(result.body) };
  const effects = { [command.key]: { reply, effect: result.effect } };
  if (command.compensates && !found) effects[command.compensates] = { tombstone: true };
  if (result.undone) effects[command.compensates] = { ...found, effect: result.undone };
  memory.commit({ messageId: command.messageId, hash: command.hash, reply, effects });
  return reply;
}
