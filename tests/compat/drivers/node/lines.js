// The JSON-lines loop that the Node drivers share: every request runs at once. Knows no client.
'use strict'

const readline = require('node:readline')

const raw = text => (text === null ? null : Buffer.from(text, 'base64'))
const text = value => (value === null || value === undefined ? null : Buffer.from(value).toString('base64'))

function serve (ops, codeOf) {
  const lines = readline.createInterface({ input: process.stdin })
  lines.on('line', async line => {
    const ask = JSON.parse(line)
    let said
    try {
      said = { id: ask.id, ok: await ops[ask.op](ask) }
    } catch (error) {
      said = { id: ask.id, error: { code: codeOf(error), message: story(error) } }
    }
    process.stdout.write(JSON.stringify(said) + '\n')
  })
  lines.on('close', () => process.exit(0))
}

// An error and what it says of its causes.
function story (error) {
  const parts = (error.errors ?? [error.cause]).filter(Boolean)
  return `${error.name}: ${error.message}` + (parts.length > 0 ? ` <- ${story(parts.at(-1))}` : '')
}

// The first number that `read(error)` finds in an error, its causes and its parts; null when there is none.
function search (error, read) {
  const left = [error]
  while (left.length > 0) {
    const one = left.shift()
    if (!one) continue
    const code = read(one)
    if (Number.isInteger(code)) return code
    left.push(one.cause, one.originalError, ...(one.errors ?? []))
  }
  return null
}

module.exports = { raw, text, serve, search }
