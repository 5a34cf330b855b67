// Groups with @platformatic/kafka: members, and what its admin client does with groups.
'use strict'

const { memberOps } = require('./members.js')

const FENCED_INSTANCE_ID = 82

module.exports = (library, common, withAdmin, codeOf) => {
  async function join (ask, notes) {
    const { Consumer } = await library
    const consumer = new Consumer({
      ...common(ask),
      retries: true, // a broker may restart: for ever
      groupId: ask.group,
      groupInstanceId: ask.instance_id ?? undefined,
      sessionTimeout: ask.session_ms,
      heartbeatInterval: ask.heartbeat_ms,
      rebalanceTimeout: Math.max(30_000, ask.session_ms),
      maxWaitTime: 300,
      metadataMaxAge: 2000,
      autocommit: ask.auto_commit ? 200 : false
    })
    const next = new Map()
    consumer.on('consumer:group:rebalance', () => next.clear())
    consumer.on('consumer:heartbeat:error', ({ error }) => {
      if (codeOf(error) === FENCED_INSTANCE_ID) notes.fail(error)
    })
    const stream = await consumer.consume({ topics: [ask.topic], mode: 'committed', fallbackMode: 'earliest' })
    stream.on('error', notes.fail)
    stream.on('data', message => {
      notes.records.push([message.partition, Number(message.offset)])
      next.set(message.partition, message.offset + 1n)
    })
    return {
      commit: () => consumer.commit({
        offsets: [...next].map(([partition, offset]) => ({ topic: ask.topic, partition, offset, leaderEpoch: 0 }))
      }),
      leave: async () => {
        await stream.close()
        await consumer.close(true)
      }
    }
  }

  const partitions = ask => [{ name: ask.topic, partitionIndexes: [ask.partition] }]
  return {
    ...memberOps(join, codeOf),
    groups: ask => withAdmin(ask, async admin => ({ groups: [...(await admin.listGroups({})).keys()] })),
    describe_group: ask => withAdmin(ask, async admin => {
      const told = (await admin.describeGroups({ groups: [ask.group] })).get(ask.group)
      const members = [...told.members.values()].map(one => (
        [one.clientId, one.groupInstanceId ?? null, [...(one.assignments?.values() ?? [])].flatMap(topic => topic.partitions)]
      ))
      return { state: told.state, members }
    }),
    delete_group: ask => withAdmin(ask, async admin => {
      await admin.deleteGroups({ groups: [ask.group] })
      return {}
    }),
    group_offset: ask => withAdmin(ask, async admin => {
      const [told] = await admin.listConsumerGroupOffsets({ groups: [{ groupId: ask.group, topics: partitions(ask) }] })
      const [found] = told.topics[0].partitions
      const offset = Number(found.committedOffset)
      return { offset: offset < 0 ? null : offset, metadata: found.metadata, epoch: found.committedLeaderEpoch }
    }),
    alter_offset: ask => withAdmin(ask, async admin => {
      const partitionOffsets = [{ partition: ask.partition, offset: BigInt(ask.offset) }]
      await admin.alterConsumerGroupOffsets({ groupId: ask.group, topics: [{ name: ask.topic, partitionOffsets }] })
      return {}
    }),
    delete_offset: ask => withAdmin(ask, async admin => {
      await admin.deleteConsumerGroupOffsets({ groupId: ask.group, topics: partitions(ask) })
      return {}
    })
  }
}
