// @platformatic/kafka behind the JSON lines of `driver.py`. Consumers assign partitions through its `fetch`.
'use strict'

const fs = require('node:fs')
const groupOps = require('./platformatic_groups.js')
const { raw, text, serve, search } = require('./lines.js')

const TOPIC = 2
const SET = 0
const MAX_BYTES = 4_000_000
const library = import('@platformatic/kafka')

function common (ask) {
  return {
    clientId: ask.client_id,
    bootstrapBrokers: [ask.servers],
    tls: ask.ca ? { ca: [fs.readFileSync(ask.ca)] } : undefined,
    retries: 5,
    retryDelay: 200,
    timeout: 30_000,
    connectTimeout: 20_000,
    requestTimeout: 60_000
  }
}

async function using (kind, ask, more, work) {
  const client = new (await library)[kind]({ ...common(ask), ...more })
  try {
    return await work(client)
  } finally {
    await client.close()
  }
}

const withAdmin = (ask, work) => using('Admin', ask, {}, work)
const entries = (ask, more) => Object.entries(ask.configs).map(([name, value]) => ({ name, value, ...more }))

const metadata = ask => withAdmin(ask, async admin => {
  const told = await admin.metadata({ topics: ask.topics ?? await admin.listTopics({}) })
  return {
    brokers: [...told.brokers].map(([id, broker]) => [id, broker.host, broker.port]),
    topics: Object.fromEntries([...told.topics].map(([name, topic]) => [name, [...topic.partitions.keys()]]))
  }
})

const create = ask => withAdmin(ask, async admin => {
  await admin.createTopics({ topics: [ask.topic], partitions: ask.partitions, replicas: 1, configs: entries(ask) })
  return {}
})

const del = ask => withAdmin(ask, async admin => {
  await admin.deleteTopics({ topics: [ask.topic] })
  return {}
})

const deleteRecords = ask => withAdmin(ask, async admin => {
  const partitions = [{ partition: ask.partition, offset: BigInt(ask.offset) }]
  const told = await admin.deleteRecords({ topics: [{ name: ask.topic, partitions }] })
  return { low: Number(told[0].partitions[0].lowWatermark) }
})

const describe = ask => withAdmin(ask, async admin => {
  const told = await admin.describeConfigs({ resources: [{ resourceType: TOPIC, resourceName: ask.topic }] })
  return { configs: Object.fromEntries(told[0].configs.map(one => [one.name, one.value])) }
})

const alter = ask => withAdmin(ask, async admin => {
  const configs = entries(ask, { configOperation: SET })
  await admin.incrementalAlterConfigs({ resources: [{ resourceType: TOPIC, resourceName: ask.topic, configs }] })
  return {}
})

const offset = ask => withAdmin(ask, async admin => ({ offset: await listed(admin, ask, ask.when) }))

async function listed (admin, ask, when) {
  const timestamp = { earliest: -2n, latest: -1n }[when] ?? BigInt(when)
  const partitions = [{ partitionIndex: ask.partition, timestamp }]
  const told = await admin.listOffsets({ topics: [{ name: ask.topic, partitions }] })
  const found = Number(told[0].partitions[0].offset)
  return found < 0 ? null : found
}

const produce = ask => using('Producer', ask, { idempotent: ask.idempotent, autocreateTopics: true }, async producer => {
  const messages = ask.records.map(record => ({
    topic: ask.topic,
    partition: ask.partition,
    key: raw(record.key) ?? undefined,
    value: raw(record.value) ?? undefined,
    headers: new Map(record.headers.map(([name, value]) => [Buffer.from(name), raw(value)])),
    timestamp: record.timestamp === null ? undefined : BigInt(record.timestamp)
  }))
  const told = await producer.send({ messages, acks: ask.acks, compression: ask.codec })
  const base = told.offsets?.[0]?.offset
  return { offsets: messages.map((_, place) => (base === undefined ? null : Number(base) + place)) }
})

const beginTransaction = ask => {
  const producer = { idempotent: true, transactionalId: ask.transactional_id }
  return using('Producer', ask, producer, async producer => {
    await producer.beginTransaction({})
    return {}
  })
}

async function consume (ask) {
  const start = typeof ask.offset === 'number' ? ask.offset : await withAdmin(ask, admin => listed(admin, ask, ask.offset))
  return using('Consumer', ask, { groupId: 'unused' }, async consumer => {
    const topic = (await consumer.metadata({ topics: [ask.topic] })).topics.get(ask.topic)
    const records = []
    const deadline = Date.now() + ask.timeout_ms
    let next = start
    while (records.length < ask.count && Date.now() < deadline) {
      for (const record of await fetched(consumer, ask, topic, next)) {
        next = record.offset + 1
        if (record.offset >= start && records.length < ask.count) records.push(record)
      }
    }
    return { records }
  })
}

async function fetched (consumer, ask, topic, next) {
  const partition = {
    partition: ask.partition,
    currentLeaderEpoch: topic.partitions[ask.partition].leaderEpoch,
    fetchOffset: BigInt(next),
    lastFetchedEpoch: -1,
    partitionMaxBytes: MAX_BYTES
  }
  const told = await consumer.fetch({
    node: topic.partitions[ask.partition].leader,
    topics: [{ topicId: topic.id, partitions: [partition] }],
    minBytes: ask.min_bytes,
    maxBytes: MAX_BYTES,
    maxWaitTime: ask.max_wait_ms,
    isolationLevel: ask.committed ? 1 : 0
  })
  const batches = told.responses[0]?.partitions[0]?.records ?? []
  return batches.flatMap(batch => batch.records.map(record => ({
    offset: Number(batch.firstOffset) + record.offsetDelta,
    timestamp: Number(batch.firstTimestamp + record.timestampDelta),
    key: text(record.key),
    value: text(record.value),
    headers: record.headers.map(([name, value]) => [name.toString(), text(value)])
  })))
}

const codeOf = error => search(error, one => one.apiCode)
const groups = groupOps(library, common, withAdmin, codeOf)

const more = { delete_records: deleteRecords, begin_transaction: beginTransaction, ...groups }

serve({ metadata, create, delete: del, describe, alter, offset, produce, consume, ...more }, codeOf)
