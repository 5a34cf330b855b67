// KafkaJS behind the JSON lines of `driver.py`. It consumes in groups only, so it has no `consume`.
'use strict'

const fs = require('node:fs')
const { CompressionCodecs, CompressionTypes, Kafka, Partitioners, logLevel } = require('kafkajs')
const SnappyCodec = require('kafkajs-snappy')
const groupOps = require('./kafkajs_groups.js')
const { raw, serve, search } = require('./lines.js')

CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec
const CODECS = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy }
const TOPIC = 2

function client (ask, retries = 6) {
  return new Kafka({
    clientId: ask.client_id,
    brokers: [ask.servers],
    ssl: ask.ca ? { ca: [fs.readFileSync(ask.ca)] } : undefined,
    logLevel: logLevel.NOTHING,
    connectionTimeout: 20_000,
    retry: { retries, initialRetryTime: 100, maxRetryTime: 5_000 }
  })
}

async function withAdmin (ask, work) {
  const admin = client(ask).admin()
  await admin.connect()
  try {
    return await work(admin)
  } finally {
    await admin.disconnect()
  }
}

const configEntries = ask => Object.entries(ask.configs).map(([name, value]) => ({ name, value }))

const metadata = ask => withAdmin(ask, async admin => {
  const { brokers } = await admin.describeCluster()
  const told = await admin.fetchTopicMetadata(ask.topics ? { topics: ask.topics } : undefined)
  return {
    brokers: brokers.map(broker => [broker.nodeId, broker.host, broker.port]),
    topics: Object.fromEntries(told.topics.map(t => [t.name, t.partitions.map(p => p.partitionId)]))
  }
})

const create = ask => withAdmin(ask, async admin => {
  const topic = { topic: ask.topic, numPartitions: ask.partitions, replicationFactor: 1, configEntries: configEntries(ask) }
  if (!await admin.createTopics({ topics: [topic] })) {
    throw Object.assign(new Error('it exists'), { code: 36 }) // KafkaJS says false
  }
  return {}
})

const del = ask => withAdmin(ask, async admin => {
  await admin.deleteTopics({ topics: [ask.topic] })
  return {}
})

const deleteRecords = ask => withAdmin(ask, async admin => {
  const partitions = [{ partition: ask.partition, offset: String(ask.offset) }]
  await admin.fetchTopicOffsets(ask.topic) // it deletes only where it knows the leader already
  await admin.deleteTopicRecords({ topic: ask.topic, partitions })
  return { low: null }
})

const describe = ask => withAdmin(ask, async admin => {
  const told = await admin.describeConfigs({ resources: [{ type: TOPIC, name: ask.topic }], includeSynonyms: false })
  const entries = told.resources[0].configEntries
  return { configs: Object.fromEntries(entries.map(entry => [entry.configName, entry.configValue])) }
})

const alter = ask => withAdmin(ask, async admin => {
  const resource = { type: TOPIC, name: ask.topic, configEntries: configEntries(ask) }
  await admin.alterConfigs({ resources: [resource], validateOnly: false })
  return {}
})

const offset = ask => withAdmin(ask, async admin => {
  const byTime = typeof ask.when === 'number'
  const told = byTime
    ? await admin.fetchTopicOffsetsByTimestamp(ask.topic, ask.when)
    : await admin.fetchTopicOffsets(ask.topic)
  const found = told.find(one => one.partition === ask.partition)
  return { offset: Number(ask.when === 'earliest' ? found.low : found.offset) }
})

function headersOf (record) {
  const headers = {}
  for (const [name, value] of record.headers) {
    headers[name] = name in headers ? [].concat(headers[name], raw(value)) : raw(value)
  }
  return headers
}

async function produce (ask) {
  const producer = client(ask, ask.give_up_ms < 10_000 ? 2 : 8).producer({
    createPartitioner: Partitioners.DefaultPartitioner,
    idempotent: ask.idempotent,
    allowAutoTopicCreation: true
  })
  await producer.connect()
  try {
    const messages = ask.records.map(record => ({
      key: raw(record.key),
      value: raw(record.value),
      partition: ask.partition,
      headers: headersOf(record),
      timestamp: record.timestamp === null ? undefined : String(record.timestamp)
    }))
    await producer.send({ topic: ask.topic, acks: ask.acks, compression: CODECS[ask.codec], messages })
    return { offsets: messages.map(() => null) }
  } finally {
    await producer.disconnect()
  }
}

async function beginTransaction (ask) {
  const producer = client(ask).producer({ transactionalId: ask.transactional_id, maxInFlightRequests: 1, idempotent: true })
  await producer.connect()
  try {
    await producer.transaction()
    return {}
  } finally {
    await producer.disconnect()
  }
}

const codeOf = error => search(error, one => one.code)
const groups = groupOps(client, withAdmin, codeOf)

const more = { delete_records: deleteRecords, begin_transaction: beginTransaction, ...groups }

serve({ metadata, create, delete: del, describe, alter, offset, produce, ...more }, codeOf)
