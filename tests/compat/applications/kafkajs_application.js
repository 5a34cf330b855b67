// A consumer group application: copies every record of one topic to another, at least once, and commits what was copied.
//     node kafkajs_application.js SERVERS GROUP SOURCE TARGET
// A copy's value is the record's partition, offset and value, with spaces between. SIGTERM ends it.
"use strict";

process.env.KAFKAJS_NO_PARTITIONER_WARNING = "1";
const { Kafka, logLevel } = require("kafkajs");

const [servers, group, source, target] = process.argv.slice(2);
const RETRIES = 100; // a broker may be away for a while
const AGAIN_MS = 500;
const kafka = new Kafka({
  clientId: "copier",
  brokers: servers.split(","),
  logLevel: logLevel.WARN,
  connectionTimeout: 20_000,
  retry: { retries: RETRIES, initialRetryTime: 100, maxRetryTime: 1_000 },
});
const producer = kafka.producer();
let consumer;

async function consume() {
  consumer = kafka.consumer({
    groupId: group,
    sessionTimeout: 10_000, // short: another takes over soon when one of us is killed
    heartbeatInterval: 500,
    retry: { retries: RETRIES, restartOnFailure: async () => true },
  });
  // it ends for good when no broker answers while it looks for the coordinator
  consumer.on(consumer.events.CRASH, ({ payload }) => {
    if (!payload.restart) setTimeout(() => consume().catch(fail), AGAIN_MS);
  });
  await consumer.connect();
  await consumer.subscribe({ topics: [source], fromBeginning: true });
  await consumer.run({
    autoCommitInterval: 200,
    partitionsConsumedConcurrently: 4,
    eachMessage: async ({ partition, message }) => {
      const value = `${partition} ${message.offset} ${message.value}`;
      await producer.send({ topic: target, messages: [{ value }] });
    },
  });
}

async function main() {
  await producer.connect();
  process.once("SIGTERM", async () => {
    await consumer.disconnect();
    await producer.disconnect();
    process.exit(0);
  });
  await consume();
}

function fail(error) {
  console.error(error);
  process.exit(1);
}

main().catch(fail);
