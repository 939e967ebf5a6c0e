// The process: connect, declare, consume; answer, publish, wait for the confirm, and only then acknowledge.
//
//   BROKER_URL=amqp://guest:guest@127.0.0.1:5672/ JOURNAL=warehouse.journal node index.js

import amqp from "amqplib";
import { setTimeout as pause } from "node:timers/promises";
import { Memory } from "./memory.js";
import { answer, Malformed, read } from "./participant.js";
import { handlers } from "./warehouse.js";

const { BROKER_URL = "amqp://guest:guest@127.0.0.1:5672/", JOURNAL = "warehouse.journal" } = process.env;
const NAMESPACE = process.env.NAMESPACE ?? "antiphon";
const QUEUE = `${NAMESPACE}.participant.warehouse`;
const PREFETCH = 50;
const LONGEST_PAUSE = 5000; // milliseconds between two attempts to reach the broker

const memory = new Memory(JOURNAL);
let stopping = false;
let stop = () => {};
for (const signal of ["SIGTERM", "SIGINT"]) {
  process.on(signal, () => {
    stopping = true;
    stop();
  });
}

async function declare(channel) {
  const dead = `${NAMESPACE}.dead`;
  await channel.assertExchange(`${NAMESPACE}.commands`, "topic", { durable: true });
  await channel.assertExchange(`${NAMESPACE}.events`, "topic", { durable: true });
  await channel.assertExchange(dead, "fanout", { durable: true });
  await channel.assertQueue(dead, { durable: true, arguments: { "x-queue-type": "quorum" } });
  await channel.bindQueue(dead, dead, "");
  await channel.assertQueue(QUEUE, {
    durable: true,
    arguments: {
      "x-queue-type": "quorum",
      "x-delivery-limit": 1000,
      "x-dead-letter-exchange": dead,
      "x-dead-letter-strategy": "at-least-once",
      "x-overflow": "reject-publish",
    },
  });
  for (const name of Object.keys(handlers)) await channel.bindQueue(QUEUE, `${NAMESPACE}.commands`, name);
}

// Publish the reply; resolves when the broker has it in a queue.
function publish(channel, command, reply, returned) {
  const [exchange, routingKey] = command.replyTo ? ["", command.replyTo] : [`${NAMESPACE}.events`, reply.name];
  const options = {
    messageId: reply.id,
    type: reply.name,
    contentType: "application/json",
    correlationId: command.correlationId,
    appId: "warehouse",
    timestamp: Math.floor(Date.now() / 1000),
    persistent: true,
    mandatory: Boolean(command.replyTo), // an event may have no listener; a reply that is asked for has one
    headers: { "schema-version": 1, "causation-id": command.messageId },
  };
  return new Promise((resolve, reject) => {
    channel.publish(exchange, routingKey, Buffer.from(reply.body), options, (error) => {
      // The broker says that it found no queue before it confirms.
      if (error || returned.delete(reply.id)) reject(error ?? new Error(`nobody listens at ${routingKey}`));
      else resolve();
    });
  });
}

async function take(channel, delivery, returned) {
  try {
    const command = read(delivery);
    const reply = answer(command, handlers, memory);
    if (reply) await publish(channel, command, reply, returned);
    channel.ack(delivery);
  } catch (error) {
    if (error instanceof Malformed) {
      console.error(`refused: ${error.message}`);
      channel.reject(delivery, false); // to the dead letters
    } else {
      console.error(`again: ${error.message}`);
      await pause(1000);
      channel.reject(delivery, true);
    }
  }
}

async function serve() {
  const connection = await amqp.connect(BROKER_URL, { timeout: 10_000, heartbeat: 10 });
  const lost = new Promise((resolve) => connection.on("close", resolve));
  connection.on("error", (error) => console.error(`connection: ${error.message}`));
  const channel = await connection.createConfirmChannel();
  channel.on("error", (error) => console.error(`channel: ${error.message}`));
  channel.on("close", () => connection.close().catch(() => {}));
  const returned = new Set();
  channel.on("return", ({ properties }) => returned.add(properties.messageId));

  await declare(channel);
  await channel.prefetch(PREFETCH);
  const working = new Set();
  const { consumerTag } = await channel.consume(QUEUE, (delivery) => {
    if (delivery === null) return void channel.close(); // the broker has cancelled us: begin anew
    const work = take(channel, delivery, returned).catch((error) => console.error(`channel: ${error.message}`));
    working.add(work);
    work.finally(() => working.delete(work));
  });
  const asked = new Promise((resolve) => (stop = resolve));
  if (stopping) stop();
  console.log("ready");
  await Promise.race([asked, lost]);
  if (!stopping) throw new Error("the connection was lost");
  await channel.cancel(consumerTag);
  await Promise.all(working);
  await connection.close();
}

for (let attempt = 0; !stopping; attempt++) {
  try {
    await serve();
  } catch (error) {
    console.error(`away: ${error.message}`);
    if (stopping) break;
    await Promise.race([pause(Math.min(200 * 2 ** Math.min(attempt, 10), LONGEST_PAUSE)), new Promise((resolve) => (stop = resolve))]);
  }
}
memory.close();
process.exit(0);
