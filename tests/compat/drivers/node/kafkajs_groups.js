// Groups with KafkaJS: members, and what its admin client does with groups.
'use strict'

const { AssignerProtocol } = require('kafkajs')
const { memberOps } = require('./members.js')

// It ends for good when no broker answers while it looks for the coordinator; whoever runs it starts it again.
const NO_COORDINATOR = 'KafkaJSGroupCoordinatorNotFound'
const AGAIN_MS = 500
const RETRIES = 200

module.exports = (client, withAdmin, codeOf) => {
  async function join (ask, notes) {
    const member = { consumer: null, next: new Map(), left: false }
    await open(ask, notes, member)
    return {
      commit: metadata => member.consumer.commitOffsets([...member.next].map(([partition, offset]) => (
        { topic: ask.topic, partition, offset: String(offset), metadata: metadata ?? undefined }
      ))),
      leave: () => {
        member.left = true
        return member.consumer.disconnect()
      }
    }
  }

  async function open (ask, notes, member) {
    const consumer = member.consumer = client(ask, RETRIES).consumer({
      groupId: ask.group,
      // a broker may restart
      retry: { retries: RETRIES, initialRetryTime: 100, maxRetryTime: 500, restartOnFailure: async () => true },
      sessionTimeout: ask.session_ms,
      heartbeatInterval: ask.heartbeat_ms,
      maxWaitTimeInMs: 300,
      metadataMaxAge: 2000
    })
    const next = member.next
    consumer.on(consumer.events.CRASH, event => {
      if (event.payload.restart) return
      if (event.payload.error.name === NO_COORDINATOR) {
        setTimeout(() => again(ask, notes, member), AGAIN_MS)
      } else {
        notes.fail(event.payload.error)
      }
    })
    consumer.on(consumer.events.REBALANCING, () => next.clear())
    await consumer.connect()
    await consumer.subscribe({ topics: [ask.topic], fromBeginning: true })
    await consumer.run({
      autoCommit: ask.auto_commit,
      autoCommitInterval: 200,
      eachMessage: async ({ partition, message }) => {
        notes.records.push([partition, Number(message.offset)])
        next.set(partition, Number(message.offset) + 1)
      }
    })
  }

  function again (ask, notes, member) {
    if (member.left) return
    open(ask, notes, member).catch(() => setTimeout(() => again(ask, notes, member), AGAIN_MS))
  }

  return {
    ...memberOps(join, codeOf),
    groups: ask => withAdmin(ask, async admin => ({ groups: (await admin.listGroups()).groups.map(one => one.groupId) })),
    describe_group: ask => withAdmin(ask, async admin => {
      const [told] = (await admin.describeGroups([ask.group])).groups
      if (told.errorCode) throw Object.assign(new Error('DescribeGroups'), { code: told.errorCode })
      const members = told.members.map(one => {
        const assigned = one.memberAssignment.length > 0 ? AssignerProtocol.MemberAssignment.decode(one.memberAssignment) : null
        return [one.clientId, null, Object.values(assigned?.assignment ?? {}).flat()]
      })
      return { state: told.state, members }
    }),
    delete_group: ask => withAdmin(ask, async admin => {
      try {
        await admin.deleteGroups([ask.group])
      } catch (error) {
        throw Object.assign(error, { code: error.groups?.[0].errorCode })
      }
      return {}
    }),
    group_offset: ask => withAdmin(ask, async admin => {
      const [told] = await admin.fetchOffsets({ groupId: ask.group, topics: [ask.topic] })
      const found = told.partitions.find(one => one.partition === ask.partition)
      const offset = Number(found.offset)
      return { offset: offset < 0 ? null : offset, metadata: found.metadata, epoch: null }
    }),
    alter_offset: ask => withAdmin(ask, async admin => {
      const partitions = [{ partition: ask.partition, offset: String(ask.offset) }]
      await admin.setOffsets({ groupId: ask.group, topic: ask.topic, partitions })
      return {}
    })
  }
}
