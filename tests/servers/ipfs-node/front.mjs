// One IPFS node (Helia) on 127.0.0.1 behind the calls of kubo's RPC that Comb makes, as their documentation says:
// `node front.mjs FOLDER PORT [PORT OF ANOTHER]`.
//
// Blocks, CIDs, pins, collection and the exchange of blocks between two such nodes (bitswap over libp2p) are Helia's. Ours
// is only what Helia has not: the HTTP around it, recursive pins as counts over its pins of single blocks, and records,
// which the package `ipns` checks and orders and which two fronts hand to each other, since there is no network to ask.

import { promises as fs } from 'node:fs'
import http from 'node:http'
import path from 'node:path'

// Packages of today take it for granted; Node 20 has it not.
Promise.withResolvers ??= function () {
  let resolve, reject
  const promise = new Promise((yes, no) => { resolve = yes; reject = no })
  return { promise, resolve, reject }
}
const { Helia } = await import('@helia/utils')
const { bitswap } = await import('@helia/block-brokers')
const { createLibp2p } = await import('libp2p')
const { tcp } = await import('@libp2p/tcp')
const { noise } = await import('@chainsafe/libp2p-noise')
const { yamux } = await import('@chainsafe/libp2p-yamux')
const { identify } = await import('@libp2p/identify')
const { multiaddr } = await import('@multiformats/multiaddr')
const { FsBlockstore } = await import('blockstore-fs')
const { MemoryDatastore } = await import('datastore-core')
const { CID } = await import('multiformats/cid')
const { base36 } = await import('multiformats/bases/base36')
const { sha256 } = await import('multiformats/hashes/sha2')
const { ipnsSelector } = await import('ipns/selector')
const { ipnsValidator } = await import('ipns/validator')
const { multihashToIPNSRoutingKey } = await import('ipns')

const [folder, port, peerPort] = process.argv.slice(2)
const CODECS = { raw: 0x55, 'dag-pb': 0x70 }
const BODY_BYTES_MAX = 3 << 20
const WAIT_MS_MAX = 20_000

/** What kubo answers with 400 or 500. */
class Failure extends Error {
  constructor (message, status = 500) {
    super(message)
    this.status = status
  }
}

// The node. After a kill it listens where it did, so that the other finds it again, and pins the same roots.
const addressFile = path.join(folder, 'address')
const rootsFile = path.join(folder, 'roots')
const read = async (file, otherwise) => JSON.parse(await fs.readFile(file, 'utf8').catch(() => JSON.stringify(otherwise)))
async function replace (file, content) {
  await fs.writeFile(`${file}.new`, content)
  await fs.rename(`${file}.new`, file)
}
const libp2p = await createLibp2p({
  addresses: { listen: [await read(addressFile, '/ip4/127.0.0.1/tcp/0')] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: { identify: identify() },
  peerDiscovery: []
})
const helia = new Helia({
  libp2p,
  blockBrokers: [bitswap()],
  routers: [],
  blockstore: new FsBlockstore(path.join(folder, 'blocks')),
  datastore: new MemoryDatastore()
})
await helia.start()
const address = libp2p.getMultiaddrs()[0].decapsulate('/p2p').toString()
await fs.writeFile(addressFile, JSON.stringify(address))

// The other node: its RPC, and where it listens.
let peer
async function meet (other) {
  const answer = await fetch(`http://127.0.0.1:${other}/test/address`, { method: 'POST' })
  peer = { port: other, address: multiaddr(await answer.json()) }
  await dial()
}
async function dial () {
  if (peer == null || libp2p.getConnections().some(one => one.status === 'open')) return
  await libp2p.dial(peer.address, { signal: AbortSignal.timeout(2000) }).catch(() => {})
}

async function bytes (source) {
  const given = await source
  if (given instanceof Uint8Array) return Buffer.from(given)
  const parts = []
  for await (const part of given) parts.push(part)
  return Buffer.concat(parts)
}

/** A block, from here or over bitswap. */
async function block (cid, signal = AbortSignal.timeout(WAIT_MS_MAX)) {
  if (!await helia.blockstore.has(cid)) await dial()
  return bytes(helia.blockstore.get(cid, { signal }))
}

async function links (cid) {
  const codec = await helia.getCodec(cid.code)
  return cid.code === CODECS.raw ? [] : codec.decode(await block(cid)).Links.map(link => link.Hash)
}

// Pins: how many roots and links lead to a block. Helia pins each block that has one, by itself.
const counts = new Map()
const roots = new Map(Object.entries(await read(rootsFile, {})))

async function fetchAll (cid) {
  if (counts.has(`${cid}`)) return
  for (const link of await links(cid)) {
    if (link.code === CODECS.raw) await block(link)
    else await fetchAll(link)
  }
}
async function hold (cid) {
  const count = counts.get(`${cid}`) ?? 0
  counts.set(`${cid}`, count + 1)
  if (count > 0) return
  for await (const _ of helia.pins.add(cid, { depth: 0 }));
  for (const link of await links(cid)) await hold(link)
}
async function release (cid) {
  const count = counts.get(`${cid}`) - 1
  if (count > 0) return counts.set(`${cid}`, count)
  counts.delete(`${cid}`)
  for (const link of await links(cid)) await release(link)
  for await (const _ of helia.pins.rm(cid));
}
const saveRoots = () => replace(rootsFile, JSON.stringify(Object.fromEntries(roots)))
async function pin (cid, name) {
  if (!roots.has(`${cid}`)) {
    await block(cid)
    await fetchAll(cid)
    await hold(cid)
  }
  roots.set(`${cid}`, name)
  await saveRoots()
}
async function unpin (cid) {
  if (!roots.delete(`${cid}`)) throw new Failure('not pinned or pinned indirectly')
  await saveRoots()
  await release(cid)
}
for (const root of roots.keys()) await hold(CID.parse(root))

// Nothing is collected while something is being pinned.
let last = Promise.resolve()
const alone = work => {
  const done = last.then(work)
  last = done.catch(() => {})
  return done
}

// Records.
const routingKey = name => multihashToIPNSRoutingKey(CID.parse(name, base36).multihash)
const recordFile = name => path.join(folder, `record-${name}`)
const ownRecord = name => fs.readFile(recordFile(name)).catch(() => {})
async function keepRecord (name, record) {
  await ipnsValidator(routingKey(name), record)
  const own = await ownRecord(name)
  if (own != null && ipnsSelector(routingKey(name), [own, record]) === 0 && !own.equals(record)) {
    throw new Failure("can't replace a newer value with an older value")
  }
  await replace(recordFile(name), record)
}
async function peersRecord (name) {
  if (peer == null) return
  const answer = await fetch(`http://127.0.0.1:${peer.port}/test/record?arg=${name}`, { method: 'POST', signal: AbortSignal.timeout(2000) }).catch(() => {})
  return answer?.ok ? Buffer.from(await answer.arrayBuffer()) : undefined
}
const nameOf = key => {
  const [, kind, name] = /^\/(ipns)\/(k[0-9a-z]+)$/.exec(key) ?? []
  if (kind == null) throw new Failure('invalid key')
  return name
}

// What was asked of the remote service, which is the other node.
const remote = new Map()
let isWrong = false

/** The file of a multipart body. */
function file (body, type) {
  const boundary = /boundary="?([^";]+)/.exec(type ?? '')?.[1]
  if (boundary == null) throw new Failure('file argument is required', 400)
  const from = body.indexOf('\r\n\r\n')
  const to = body.lastIndexOf(`\r\n--${boundary}--`)
  if (!body.subarray(0, boundary.length + 2).equals(Buffer.from(`--${boundary}`)) || from < 0 || to < from) throw new Failure('no multipart body', 400)
  return body.subarray(from + 4, to)
}

const one = value => `${JSON.stringify(value)}\n`
const cidOf = text => { try { return CID.parse(text.replace(/^\/ipfs\//, '')) } catch { throw new Failure(`invalid path "${text}"`) } }
const service = query => {
  if (query.get('service') !== 'peer' || peer == null) throw new Failure('service not known')
}

const calls = {
  async 'block/put' (query, body, type) {
    const code = CODECS[query.get('cid-codec') ?? 'raw']
    if (code == null || query.get('mhtype') !== 'sha2-256') throw new Failure('unrecognized codec or multihash', 400)
    const data = file(body, type)
    if (data.length > 2 << 20) throw new Failure('produced block is over 2MiB')
    const cid = CID.createV1(code, await sha256.digest(data))
    await helia.blockstore.put(cid, data)
    return one({ Key: cid.toString(), Size: data.length })
  },
  async 'block/get' (query, _body, _type, signal) {
    const data = await block(cidOf(query.get('arg')), signal)
    if (isWrong && data.length > 0) data[data.length >> 1] ^= 1
    return data
  },
  async 'pin/add' (query) {
    const cid = cidOf(query.get('arg'))
    await alone(() => pin(cid, query.get('name') ?? ''))
    return one({ Pins: [cid.toString()] })
  },
  async 'pin/update' (query) {
    const [from, to] = query.getAll('arg').map(cidOf)
    await alone(async () => {
      if (!roots.has(`${from}`)) throw new Failure("'from' cid was not recursively pinned already")
      if (roots.has(`${to}`)) throw new Failure("'to' cid was already recursively pinned")
      await pin(to, roots.get(`${from}`))
      if (query.get('unpin') !== 'false') await unpin(from)
    })
    return one({ Pins: [from.toString(), to.toString()] })
  },
  async 'pin/rm' (query) {
    const cid = cidOf(query.get('arg'))
    await alone(() => unpin(cid))
    return one({ Pins: [cid.toString()] })
  },
  async 'pin/ls' (query) {
    const found = [...roots].filter(([, name]) => name.includes(query.get('name') ?? ''))
    return one({ Keys: Object.fromEntries(found.map(([cid, Name]) => [cid, { Type: 'recursive', Name }])) })
  },
  async 'pin/remote/add' (query) {
    service(query)
    const [cid, name] = [cidOf(query.get('arg')).toString(), query.get('name') ?? '']
    remote.set(cid, { name, status: 'queued' })
    const pinned = fetch(`http://127.0.0.1:${peer.port}/api/v0/pin/add?arg=${cid}&name=remote`, { method: 'POST' })
    pinned.then(({ ok }) => { remote.get(cid).status = ok ? 'pinned' : 'failed' }, () => {})
    return one({ Cid: cid, Name: name, Status: 'queued' })
  },
  async 'pin/remote/ls' (query) {
    service(query)
    const wanted = query.getAll('status').length > 0 ? query.getAll('status') : ['pinned']
    const found = [...remote].filter(([, pin]) => pin.name === query.get('name') && wanted.includes(pin.status))
    return found.map(([cid, pin]) => one({ Cid: cid, Name: pin.name, Status: pin.status })).join('')
  },
  async 'pin/remote/rm' (query) {
    service(query)
    for (const cid of query.getAll('cid')) {
      if (remote.get(cid)?.status !== 'pinned') continue
      remote.delete(cid)
      await fetch(`http://127.0.0.1:${peer.port}/api/v0/pin/rm?arg=${cid}`, { method: 'POST' })
    }
    return ''
  },
  async 'routing/put' (query, body, type) {
    const name = nameOf(query.get('arg'))
    const record = Buffer.from(file(body, type))
    await keepRecord(name, record)
    if (peer != null) {
      await fetch(`http://127.0.0.1:${peer.port}/test/keep?arg=${name}`, { method: 'POST', body: record, signal: AbortSignal.timeout(2000) }).catch(() => {})
    }
    return one({ Extra: '', ID: name, Responses: null, Type: 5 })
  },
  async 'routing/get' (query) {
    const name = nameOf(query.get('arg'))
    const found = [await ownRecord(name), await peersRecord(name)].filter(record => record != null)
    if (found.length === 0) throw new Failure('routing: not found')
    const best = found[ipnsSelector(routingKey(name), found)]
    return one({ Extra: best.toString('base64'), ID: '', Responses: null, Type: 5 })
  },
  async 'repo/gc' () {
    const gone = []
    await alone(() => helia.gc({ onProgress: event => { if (event.type === 'helia:gc:deleted') gone.push(event.detail) } }))
    return gone.map(cid => one({ Key: { '/': cid.toString() } })).join('')
  }
}

// What kubo has not: between the fronts, and for tests.
const between = {
  async address () { return one(address) },
  async peer (query) { await meet(query.get('arg')); return one('met') },
  async record (query) {
    const own = await ownRecord(query.get('arg'))
    if (own == null) throw new Failure('routing: not found')
    return own
  },
  async keep (query, body) { await keepRecord(query.get('arg'), body); return one('kept') },
  async has (query) { return one(await helia.blockstore.has(cidOf(query.get('arg')))) },
  async wrong (query) { isWrong = query.get('arg') === 'true'; return one(isWrong) }
}

const server = http.createServer(async (request, response) => {
  const answer = (status, body) => {
    response.writeHead(status, { 'Content-Type': Buffer.isBuffer(body) ? 'application/vnd.ipld.raw' : 'application/json' })
    response.end(body)
  }
  try {
    const url = new URL(request.url, 'http://127.0.0.1')
    const [, kubo, name] = /^\/(api\/v0|test)\/(.+)$/.exec(url.pathname) ?? []
    const call = kubo === 'test' ? between[name] : calls[name]
    if (kubo == null || call == null) return answer(404, '404 page not found\n')
    if (request.method !== 'POST') return answer(405, '405 - Method Not Allowed\n')
    const parts = []
    let size = 0
    for await (const part of request) {
      size += part.length
      if (size > BODY_BYTES_MAX) return answer(400, 'too large\n')
      parts.push(part)
    }
    const gone = new AbortController()
    response.on('close', () => gone.abort())
    const signal = AbortSignal.any([gone.signal, AbortSignal.timeout(WAIT_MS_MAX)])
    answer(200, await call(url.searchParams, Buffer.concat(parts), request.headers['content-type'], signal))
  } catch (error) {
    if (!response.headersSent) answer(error.status ?? 500, one({ Message: error.message, Code: 0, Type: 'error' }))
  }
})
if (peerPort != null) {
  await meet(peerPort).catch(() => {})
  server.on('listening', () => fetch(`http://127.0.0.1:${peerPort}/test/peer?arg=${port}`, { method: 'POST' }).catch(() => {}))
}
// A connection that nobody uses is the client's to close.
server.keepAliveTimeout = 0
server.listen(Number(port), '127.0.0.1')
