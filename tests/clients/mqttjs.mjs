// The cases that MQTT.js drives the broker with.
// node mqttjs.mjs PORT VERSION CASE; VERSION is 4 (MQTT 3.1.1) or 5, MQTT_JS names the folder of node_modules.
// MQTT_PROTOCOL is mqtt (as without it), mqtts, ws or wss; MQTT_CA names the file of whom to trust.
// Prints "ok CASE" or "FAIL CASE: why". With the argument --list it prints the names of all cases.
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'

const PATIENCE_MS = 15000
const [port, version, name] = [process.argv[2], Number(process.argv[3]), process.argv[4]]
const v5 = version === 5
const transport = { protocol: process.env.MQTT_PROTOCOL ?? 'mqtt' }
if (process.env.MQTT_CA) transport.ca = readFileSync(process.env.MQTT_CA)
const clients = []

const both = {
  qos_0: () => roundTrip(0),
  qos_1: () => roundTrip(1),
  qos_2: () => roundTrip(2),

  async qos_is_the_lower_of_both() {
    const publisher = await open('publisher')
    for (const granted of [0, 1, 2]) {
      const subscriber = await open(`subscriber-${granted}`)
      assert.equal(await subscriber.subscribe(`q/${granted}`, { qos: granted }), granted)
      for (const sent of [0, 1, 2]) {
        await publisher.publish(`q/${granted}`, `${sent}`, { qos: sent })
        assert.equal((await subscriber.next()).qos, Math.min(granted, sent))
      }
    }
  },

  async retained_set_get_and_clear() {
    const publisher = await open('publisher')
    for (const qos of [0, 1, 2]) await publisher.publish(`r/${qos}`, `kept ${qos}`, { qos, retain: true })
    const seen = await open('before')
    await seen.subscribe('r/+', { qos: 2 })
    const kept = (await seen.take(3)).sort((a, b) => a.qos - b.qos)
    assert.deepEqual(kept.map((m) => [m.topic, m.text, m.retain]), [0, 1, 2].map((q) => [`r/${q}`, `kept ${q}`, true]))

    for (const qos of [0, 1, 2]) {
      await publisher.publish(`r/${qos}`, '', { qos, retain: true })
      const cleared = await seen.next()
      assert.deepEqual([cleared.topic, cleared.text, cleared.retain], [`r/${qos}`, '', false])
    }
    const late = await open('after')
    await late.subscribe('r/+', { qos: 2 })
    for (const qos of [0, 1, 2]) {
      await publisher.publish(`r/${qos}`, 'live', { qos })
      const live = await late.next()
      assert.deepEqual([live.topic, live.text, live.retain], [`r/${qos}`, 'live', false])
    }
  },

  async will_when_killed() {
    for (const qos of [0, 1, 2]) {
      const watcher = await open(`watcher-${qos}`)
      await watcher.subscribe(`will/${qos}`, { qos: 2 })
      const victim = await open(`victim-${qos}`, { will: { topic: `will/${qos}`, payload: 'gone', qos, retain: true } })
      victim.cut()
      const will = await watcher.next()
      assert.deepEqual([will.text, will.qos, will.retain], ['gone', qos, false])
      const late = await open(`late-${qos}`)
      await late.subscribe(`will/${qos}`, { qos: 2 })
      assert.deepEqual((({ text, retain }) => [text, retain])(await late.next()), ['gone', true])
    }
  },

  async no_will_after_disconnect() {
    const watcher = await open('watcher')
    await watcher.subscribe('will', { qos: 1 })
    const first = await open('device', { will: { topic: 'will', payload: 'gone', qos: 1, retain: false } })
    await first.end()
    // The same client comes after its own will, if there was one.
    const second = await open('device')
    await second.publish('will', 'back', { qos: 1 })
    assert.equal((await watcher.next()).text, 'back')
  },

  async wildcard_plus() {
    const subscriber = await open('subscriber')
    await subscriber.subscribe('a/+/c', { qos: 1 })
    await subscriber.subscribe('+', { qos: 1 })
    const publisher = await open('publisher')
    const topics = ['a/b/c', 'a/c', 'a/b/b/c', 'a//c', '/a/b/c', 'a/b/d', 'a', '/a', 'end']
    for (const topic of topics) await publisher.publish(topic, topic, { qos: 1 })
    await subscriber.untilText('end')
    assert.deepEqual(subscriber.topics().sort(), ['a', 'a/b/c', 'a//c', 'end'].sort())
  },

  async wildcard_hash() {
    const subscriber = await open('subscriber')
    await subscriber.subscribe('a/#', { qos: 1 })
    const publisher = await open('publisher')
    for (const topic of ['a', 'a/', 'a/b', 'a/b/c', 'b', 'ab', '/a', 'a/end']) await publisher.publish(topic, topic, { qos: 1 })
    await subscriber.untilText('a/end')
    assert.deepEqual(subscriber.topics().sort(), ['a', 'a/', 'a/b', 'a/b/c', 'a/end'])
  },

  async dollar_topics_are_hidden_from_wildcards() {
    const subscriber = await open('subscriber')
    await subscriber.subscribe('#', { qos: 1 })
    const other = await open('other')
    await other.subscribe('+/x', { qos: 1 })
    const publisher = await open('publisher')
    await publisher.publish('$hidden/x', 'hidden', { qos: 0 })
    await publisher.publish('end/x', 'end', { qos: 1 })
    for (const client of [subscriber, other]) assert.equal((await client.next()).topic, 'end/x')
  },

  async session_resumes_with_queued_messages() {
    const first = await open('sleeper', durable())
    assert.equal(first.connack.sessionPresent, false)
    await first.subscribe('s/1', { qos: 1 })
    await first.subscribe('s/2', { qos: 2 })
    await first.end()
    const publisher = await open('publisher')
    for (let i = 0; i < 50; i++) await publisher.publish(`s/${1 + (i % 2)}`, `${i}`, { qos: 1 + (i % 2) })
    const second = await open('sleeper', durable())
    assert.equal(second.connack.sessionPresent, true)
    // The order holds for each QoS: MQTT.js hands out QoS 2 only after PUBREL.
    const messages = await second.take(50)
    for (const qos of [1, 2]) {
      const texts = messages.filter((m) => m.qos === qos).map((m) => Number(m.text))
      assert.deepEqual(texts, range(50).filter((i) => 1 + (i % 2) === qos))
    }
    await publisher.publish('s/1', 'live', { qos: 1 })
    assert.equal((await second.next()).text, 'live')
  },

  async clean_session_forgets() {
    const first = await open('sleeper', durable())
    await first.subscribe('s', { qos: 1 })
    await first.end()
    const publisher = await open('publisher')
    await publisher.publish('s', 'lost', { qos: 1 })
    await (await open('sleeper', { clean: true })).end()
    const third = await open('sleeper', durable())
    assert.equal(third.connack.sessionPresent, false)
    await third.subscribe('end', { qos: 1 })
    await publisher.publish('s', 'lost', { qos: 1 })
    await publisher.publish('end', 'end', { qos: 1 })
    assert.equal((await third.next()).text, 'end')
  },

  async takeover_disconnects_the_first() {
    const first = await open('same', durable())
    await first.subscribe('t', { qos: 1 })
    const second = await open('same', durable())
    assert.equal(second.connack.sessionPresent, true)
    await first.closed
    if (v5) assert.equal(first.disconnect?.reasonCode, 0x8e)
    await second.publish('t', 'mine', { qos: 1 })
    assert.equal((await second.next()).text, 'mine')
    assert.equal(first.messages.length, 0)
  },

  async payload_of_1_mib() {
    const payload = randomBytes(1 << 20)
    const subscriber = await open('subscriber')
    await subscriber.subscribe('big', { qos: 2 })
    const publisher = await open('publisher')
    for (const qos of [0, 1, 2]) {
      await publisher.publish('big', payload, { qos })
      assert.equal(sha256((await subscriber.next()).payload), sha256(payload))
    }
  },

  async shared_subscription() {
    const members = []
    for (const id of ['a', 'b', 'c']) {
      const member = await open(`member-${id}`)
      await member.subscribe('$share/group/work/+', { qos: 1 })
      members.push(member)
    }
    const publisher = await open('publisher')
    for (let i = 0; i < 90; i++) await publisher.publish(`work/${i % 7}`, `${i}`, { qos: 1 })
    await condition(() => members.reduce((sum, m) => sum + m.received.length, 0) >= 90)
    // What came twice would be on its way still: it comes before the answer to this.
    for (const member of members) await member.unsubscribe('$share/group/work/+')
    const all = members.flatMap((m) => m.received.map((message) => Number(message.text)))
    assert.deepEqual(all.sort((a, b) => a - b), range(90))
    for (const member of members) assert.ok(member.received.length > 0, 'a member got nothing')
  },

  async unsubscribe_stops() {
    const subscriber = await open('subscriber')
    await subscriber.subscribe('u', { qos: 1 })
    await subscriber.subscribe('end', { qos: 1 })
    const publisher = await open('publisher')
    await publisher.publish('u', 'before', { qos: 1 })
    assert.equal((await subscriber.next()).text, 'before')
    await subscriber.unsubscribe('u')
    await publisher.publish('u', 'after', { qos: 1 })
    await publisher.publish('end', 'end', { qos: 1 })
    assert.equal((await subscriber.next()).text, 'end')
  },

  async ten_thousand_in_order() {
    const subscriber = await open('subscriber')
    await subscriber.subscribe('many', { qos: 1 })
    const publisher = await open('publisher')
    for (let sent = 0; sent < 10000; sent++) {
      // MQTT.js sends at once what it is given, whatever Receive Maximum the broker announced.
      publisher.publish('many', `${sent}`, { qos: 1 })
      // A broker bounds its queues: never be further ahead than they hold.
      if (sent % 500 === 499) await condition(() => subscriber.received.length > sent)
    }
    assert.deepEqual(subscriber.received.map((m) => Number(m.text)), range(10000))
  },

  async keep_alive_pings() {
    const client = await open('pinger', { keepalive: 1 })
    let pongs = 0
    client.mqtt.on('packetreceive', (packet) => { if (packet.cmd === 'pingresp') pongs++ })
    await condition(() => pongs >= 2)
    await client.subscribe('alive', { qos: 1 })
    await client.publish('alive', 'yes', { qos: 1 })
    assert.equal((await client.next()).text, 'yes')
  },
}

const only5 = {
  async properties_pass_through() {
    const subscriber = await open('subscriber')
    await subscriber.subscribe('p', { qos: 2 })
    const publisher = await open('publisher')
    const properties = {
      payloadFormatIndicator: true,
      contentType: 'text/plain; charset=utf-8',
      responseTopic: 'answer/to/this',
      correlationData: Buffer.from([0, 1, 0xfe, 0xff]),
      userProperties: { b: ['1', '2', '1'], a: 'first?', 'ключ': '値' },
    }
    for (const qos of [0, 1, 2]) {
      await publisher.publish('p', 'payload', { qos, properties })
      const got = { ...(await subscriber.next()).properties }
      got.userProperties = { ...got.userProperties }
      assert.deepEqual(got, properties)
    }
  },

  async will_properties() {
    const watcher = await open('watcher')
    await watcher.subscribe('will', { qos: 1 })
    const properties = { contentType: 'text/x-will', responseTopic: 'r', correlationData: Buffer.from('c'), userProperties: { k: 'v' } }
    const victim = await open('victim', { will: { topic: 'will', payload: 'gone', qos: 1, retain: false, properties } })
    victim.cut()
    const got = { ...(await watcher.next()).properties }
    got.userProperties = { ...got.userProperties }
    assert.deepEqual(got, properties)
  },

  async message_expiry_counts_down() {
    const publisher = await open('publisher')
    await publisher.publish('e', 'soon old', { qos: 1, retain: true, properties: { messageExpiryInterval: 100 } })
    const subscriber = await open('subscriber')
    let left
    do {
      await subscriber.subscribe('e', { qos: 1 })
      left = (await subscriber.next()).properties.messageExpiryInterval
      assert.ok(left > 50 && left <= 100, `expiry ${left}`)
    } while (left === 100)
  },

  async subscription_identifier() {
    const subscriber = await open('subscriber')
    await subscriber.subscribe('i/#', { qos: 1, properties: { subscriptionIdentifier: 268435455 } })
    const publisher = await open('publisher')
    await publisher.publish('i/x', 'one', { qos: 1 })
    assert.equal((await subscriber.next()).properties.subscriptionIdentifier, 268435455)
    await subscriber.subscribe('i/+', { qos: 1, properties: { subscriptionIdentifier: 7 } })
    await publisher.publish('i/x', 'two', { qos: 1 })
    // One copy with both, or one copy for each.
    const ids = []
    while (ids.length < 2) ids.push(...[(await subscriber.next()).properties.subscriptionIdentifier].flat())
    assert.deepEqual(ids.sort((a, b) => a - b), [7, 268435455])
  },

  async topic_alias_to_the_broker() {
    const subscriber = await open('subscriber')
    await subscriber.subscribe('alias/#', { qos: 1 })
    const publisher = await open('publisher')
    assert.ok(publisher.connack.properties.topicAliasMaximum >= 2, 'the broker takes no aliases')
    const alias = (topicAlias) => ({ qos: 1, properties: { topicAlias } })
    await publisher.publish('alias/long/name', '1', alias(1))
    await publisher.publish('alias/other', '2', alias(2))
    await publisher.publish('', '3', alias(1))
    await publisher.publish('', '4', alias(2))
    await publisher.publish('alias/new', '5', alias(1))
    await publisher.publish('', '6', alias(1))
    const got = (await subscriber.take(6)).map((m) => [m.text, m.topic])
    const topics = ['alias/long/name', 'alias/other', 'alias/long/name', 'alias/other', 'alias/new', 'alias/new']
    assert.deepEqual(got, topics.map((topic, i) => [`${i + 1}`, topic]))
    for (const message of subscriber.received) assert.equal(message.properties?.topicAlias, undefined)
  },

  async topic_alias_assigned_by_the_client() {
    const subscriber = await open('subscriber')
    await subscriber.subscribe('auto/#', { qos: 1 })
    const publisher = await open('publisher', { autoAssignTopicAlias: true })
    for (let i = 0; i < 60; i++) await publisher.publish(`auto/${i % 15}`, `${i}`, { qos: i % 2 })
    const got = await subscriber.take(60)
    for (const message of got) assert.equal(message.topic, `auto/${Number(message.text) % 15}`)
  },

  async topic_alias_from_the_broker() {
    const subscriber = await open('subscriber', { properties: { topicAliasMaximum: 3 } })
    await subscriber.subscribe('alias/#', { qos: 1 })
    const publisher = await open('publisher')
    for (let i = 0; i < 60; i++) await publisher.publish(`alias/${i % 7}`, `${i}`, { qos: 1 })
    for (const message of await subscriber.take(60)) assert.equal(message.topic, `alias/${Number(message.text) % 7}`)
  },

  async no_local() {
    const client = await open('both')
    await client.subscribe('n', { qos: 1, nl: true })
    await client.subscribe('end', { qos: 1 })
    await client.publish('n', 'own', { qos: 1 })
    await client.publish('end', 'end', { qos: 1 })
    assert.equal((await client.next()).text, 'end')
    const other = await open('other')
    await other.publish('n', 'theirs', { qos: 1 })
    assert.equal((await client.next()).text, 'theirs')
  },

  async retain_as_published() {
    const subscriber = await open('subscriber')
    await subscriber.subscribe('k/1', { qos: 1, rap: true })
    await subscriber.subscribe('k/0', { qos: 1, rap: false })
    const publisher = await open('publisher')
    for (const flag of [1, 0]) {
      await publisher.publish(`k/${flag}`, 'x', { qos: 1, retain: true })
      assert.equal((await subscriber.next()).retain, flag === 1)
    }
  },

  async retain_handling() {
    const publisher = await open('publisher')
    await publisher.publish('h', 'kept', { qos: 1, retain: true })
    const subscriber = await open('subscriber')
    let live = 0
    const subscribe = async (rh, kept) => {
      await subscriber.subscribe('h', { qos: 1, rh })
      await publisher.publish('h', `live ${++live}`, { qos: 1 })
      const texts = [(await subscriber.next()).text]
      if (kept) texts.push((await subscriber.next()).text)
      assert.deepEqual(texts.sort(), kept ? ['kept', `live ${live}`] : [`live ${live}`])
    }
    await subscribe(2, false)
    await subscribe(1, false)
    await subscribe(0, true)
    await subscriber.unsubscribe('h')
    await subscribe(1, true)
  },

  async assigned_client_id() {
    const ids = new Set()
    for (let i = 0; i < 3; i++) {
      const client = await open('')
      ids.add(client.connack.properties.assignedClientIdentifier)
    }
    assert.equal(ids.size, 3)
    for (const id of ids) assert.ok(id?.length > 0)
  },

  async session_expiry_0_ends_the_session() {
    const first = await open('sleeper', { clean: false, properties: { sessionExpiryInterval: 0 } })
    await first.subscribe('s', { qos: 1 })
    await first.end()
    const second = await open('sleeper', durable())
    assert.equal(second.connack.sessionPresent, false)
  },

  async request_and_response() {
    const server = await open('server')
    await server.subscribe('ask', { qos: 1 })
    const asker = await open('asker')
    await asker.subscribe('answers/asker', { qos: 1 })
    await asker.publish('ask', '6*7', { qos: 1, properties: { responseTopic: 'answers/asker', correlationData: Buffer.from('n1') } })
    const { properties } = await server.next()
    await server.publish(properties.responseTopic, '42', { qos: 1, properties: { correlationData: properties.correlationData } })
    const answer = await asker.next()
    assert.deepEqual([answer.text, answer.properties.correlationData.toString()], ['42', 'n1'])
  },
}

async function roundTrip(qos) {
  const subscriber = await open('subscriber')
  assert.equal(await subscriber.subscribe('t/x', { qos }), qos)
  const publisher = await open('publisher')
  for (const text of ['', 'one', 'двa', 'x'.repeat(70000)]) {
    await publisher.publish('t/x', text, { qos })
    const message = await subscriber.next()
    assert.deepEqual([message.topic, message.text, message.qos, message.retain, message.dup], ['t/x', text, qos, false, false])
  }
}

function durable() {
  return v5 ? { clean: false, properties: { sessionExpiryInterval: 1000 } } : { clean: false }
}

// A connected client with a queue of what it received.
async function open(clientId, options = {}) {
  const client = {
    received: [],
    messages: [],
    subscribe: (filter, options) => new Promise((done, fail) => {
      client.mqtt.subscribe(filter, options, (error, granted) => (error ? fail(error) : done(granted[0]?.qos)))
    }),
    unsubscribe: (filter) => client.mqtt.unsubscribeAsync(filter),
    publish: (topic, payload, options) => client.mqtt.publishAsync(topic, payload, options),
    next: async () => (await client.take(1))[0],
    take: async (count) => {
      await condition(() => client.messages.length >= count)
      return client.messages.splice(0, count)
    },
    untilText: (text) => condition(() => client.received.some((m) => m.text === text)),
    topics: () => client.received.map((m) => m.topic),
    end: async () => { client.mqtt.end(); await client.closed },
    cut: () => client.mqtt.stream.destroy(),
  }
  client.mqtt = mqtt.connect({
    ...transport, host: '127.0.0.1', port, protocolVersion: version, clientId, reconnectPeriod: 0, clean: true, resubscribe: false, keepalive: 0, ...options,
  })
  clients.push(client)
  client.closed = new Promise((done) => client.mqtt.on('close', () => { done(); wake() }))
  client.mqtt.on('disconnect', (packet) => { client.disconnect = packet })
  client.mqtt.on('message', (topic, payload, packet) => {
    const { qos, retain, dup, properties } = packet
    const message = { topic, payload, text: payload.toString(), qos, retain, dup, properties }
    client.received.push(message)
    client.messages.push(message)
    wake()
  })
  client.mqtt.on('packetreceive', wake)
  client.connack = await new Promise((done, fail) => {
    client.mqtt.once('connect', done)
    client.mqtt.once('error', fail)
  })
  client.mqtt.on('error', () => {})
  return client
}

// Waits until the condition holds; it is looked at after everything that arrives.
const waiting = new Set()
function condition(holds) {
  return new Promise((done) => {
    const look = () => { if (holds()) { waiting.delete(look); done() } }
    waiting.add(look)
    look()
  })
}
function wake() {
  for (const look of [...waiting]) look()
}

function range(count) {
  return [...Array(count).keys()]
}

function sha256(bytes) {
  return createHash('sha256').update(bytes).digest('hex')
}

function finish(error) {
  if (error) {
    const seen = clients.map((c) => `${c.mqtt.options.clientId}: ${c.received.length} received, ${c.messages.length} untaken`)
    console.log(`FAIL ${name}: ${error.stack ?? error}\n${seen.join('\n')}`)
  } else {
    console.log(`ok ${name}`)
  }
  process.exit(error ? 1 : 0)
}

if (process.argv[2] === '--list') {
  for (const [kind, cases] of [['both', both], ['v5', only5]]) for (const name of Object.keys(cases)) console.log(kind, name)
  process.exit(0)
}
const mqtt = createRequire(join(process.env.MQTT_JS, 'package.json'))('mqtt')
const run = both[name] ?? (v5 ? only5[name] : undefined)
if (!run) finish(new Error('no such case'))
process.on('unhandledRejection', finish)
setTimeout(() => finish(new Error(`not done after ${PATIENCE_MS} ms`)), PATIENCE_MS)
run().then(() => finish(), finish)
