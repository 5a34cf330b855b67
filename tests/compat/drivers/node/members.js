// Group members of the Node drivers, by the test's names, and their four operations. Knows no client.
'use strict'

// `join(ask, notes)` starts a member and gives its `commit(metadata)` and `leave()`.
function memberOps (join, codeOf) {
  const members = new Map()
  return {
    join: async ask => {
      const notes = { records: [], revoked: [], error: null }
      notes.fail = error => { notes.error ??= { code: codeOf(error), message: `${error.name}: ${error.message}` } }
      const member = { notes }
      members.set(ask.member, member)
      Object.assign(member, await join(ask, notes))
      return {}
    },
    look: async ask => {
      const { records, revoked, error } = members.get(ask.member).notes
      return { records: records.slice(ask.since), revoked, error }
    },
    commit: async ask => {
      await members.get(ask.member).commit(ask.metadata)
      return {}
    },
    leave: async ask => {
      await members.get(ask.member).leave()
      members.delete(ask.member)
      return {}
    }
  }
}

module.exports = { memberOps }
