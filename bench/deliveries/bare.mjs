/**
 * The bare loop: POSTs with undici to the same receivers, each with a logout token signed at that moment, as many at once
 * as the product has in flight. It reads nothing, records nothing, repeats nothing.
 *
 * node bare.mjs <control url> <urls, comma-separated> <alg> <warm-up> <count> <at once>
 */
import { generateKeyPairSync, randomUUID, sign } from 'node:crypto'
import { Agent, request } from 'undici'

const [control = '', list = '', alg = '', ...numbers] = process.argv.slice(2)
const urls = list.split(',')
const [warmUp = 0, count = 0, atOnce = 64] = numbers.map(Number)

const { privateKey } = alg === 'RS256' ? generateKeyPairSync('rsa', { modulusLength: 2_048 }) : generateKeyPairSync('ec', { namedCurve: 'P-256' })
const base64url = (/** @type {object} */ part) => Buffer.from(JSON.stringify(part)).toString('base64url')
const header = base64url({ alg, typ: 'logout+jwt', kid: 'bench' })

/** @returns {Promise<string>} */
const tokenOf = (/** @type {number} */ at) => {
  const iat = Math.floor(Date.now() / 1_000)
  const input = `${header}.${base64url({
    iss: 'https://id.example', aud: 'app', iat, exp: iat + 120, jti: randomUUID(), sid: `session-${at}`,
    events: { 'http://schemas.openid.net/event/backchannel-logout': {} },
  })}`
  // On the thread pool, as the product does it.
  return new Promise((resolve, reject) => {
    sign('sha256', Buffer.from(input), { key: privateKey, dsaEncoding: 'ieee-p1363' }, (error, signature) => {
      if (error === null) resolve(`${input}.${signature.toString('base64url')}`)
      else reject(error)
    })
  })
}

const dispatcher = new Agent({ pipelining: 1 })
const headers = { 'content-type': 'application/x-www-form-urlencoded' }

const post = async (/** @type {number} */ at) => {
  const { body, statusCode } = await request(`${urls[at % urls.length]}/logout`, {
    dispatcher, method: 'POST', headers, body: `logout_token=${await tokenOf(at)}`,
  })
  await body.dump()
  if (statusCode !== 200) throw new Error(`answered ${statusCode}`)
}

const postAll = async (/** @type {number} */ total) => {
  let next = 0
  const loop = async () => {
    while (next < total) await post(next++)
  }
  await Promise.all(Array.from({ length: atOnce }, loop))
}

await postAll(warmUp)
await fetch(`${control}/reset`)
await postAll(count)
process.exit(0)
