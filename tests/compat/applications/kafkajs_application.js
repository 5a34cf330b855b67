// A consumer group application: copies every record of one topic to another, at least once, and commits what was copied.
//     node kafkajs_application.js SERVERS GROUP SOURCE TARGET
// A copy's value is the record's partition, offset and value, with spaces between. SIGTERM ends it.
"use strict";

process.env.KAFKAJS_NO_PARTITIONER_WARNING = "1";
const { Kafka, logLevel } = require("kafkajs");

const [servers, group, source, target] = process.argv.slice(2);
const kafka = new Kafka({ clientId: "copier", brokers: servers.split(","), logLevel: logLevel.WARN });
const producer = kafka.producer();
// the shortest session that brokers allow: another takes over soon when one of us is killed
const consumer = kafka.consumer({ groupId: group, sessionTimeout: 6000, heartbeatInterval: 500 });

async function main() {
  await producer.connect();
  await consumer.connect();
  await consumer.subscribe({ topics: [source], fromBeginning: true });
  process.once("SIGTERM", async () => {
    await consumer.disconnect();
    await producer.disconnect();
    process.exit(0);
  });
  await consumer.run({
    autoCommitInterval: 200,
    partitionsConsumedConcurrently: 4,
    eachMessage: async ({ partition, message }) => {
      const value = `${partition} ${message.offset} ${message.value}`;
      await producer.send({ topic: target, messages: [{ value }] });
    },
  });
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
