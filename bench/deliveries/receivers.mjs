/**
 * Receivers in a process of their own: each on a port of its own, healthy ones answer at once, hanging ones never. The
 * first line on standard output says where they are; the control port tells what came and begins the count anew.
 *
 * node receivers.mjs <healthy> <hanging>
 */
import { createServer } from 'node:http'

const [healthyCount = 8, hangingCount = 0] = process.argv.slice(2).map(Number)

let requests = 0
let firstMs = 0
let lastMs = 0
/** How often each token's `jti` came would need verifying; its bytes tell as much. */
const seen = new Set()
let repeated = 0

/** @type {import('node:http').RequestListener} */
const answer = (request, response) => {
  /** @type {Buffer[]} */
  const chunks = []
  request.on('data', (chunk) => chunks.push(chunk))
  request.on('end', () => {
    lastMs = performance.now()
    if (requests === 0) firstMs = lastMs
    requests += 1
    // The end of the signature: enough to tell a token that was not signed anew.
    const token = Buffer.concat(chunks).subarray(-16).toString('latin1')
    if (seen.has(token)) repeated += 1
    seen.add(token)
    response.writeHead(200, { 'content-length': 0 }).end()
  })
}

/** @type {import('node:http').RequestListener} */
const hang = (request) => request.resume()

/** @type {import('node:http').RequestListener} */
const control = (request, response) => {
  if (request.url === '/reset') {
    requests = 0
    repeated = 0
    seen.clear()
  }
  response.end(JSON.stringify({ requests, repeated, seconds: (lastMs - firstMs) / 1_000 }))
}

const listen = (/** @type {import('node:http').RequestListener} */ listener) =>
  new Promise((/** @type {(url: string) => void} */ resolve) => {
    const server = createServer({ keepAliveTimeout: 60_000 }, listener)
    server.listen(0, '127.0.0.1', () => {
      const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
      resolve(`http://127.0.0.1:${port}`)
    })
  })

const many = (/** @type {number} */ count, /** @type {import('node:http').RequestListener} */ listener) =>
  Promise.all(Array.from({ length: count }, () => listen(listener)))

const [controlUrl, healthy, hanging] = await Promise.all([listen(control), many(healthyCount, answer), many(hangingCount, hang)])
process.stdout.write(`${JSON.stringify({ control: controlUrl, healthy, hanging })}\n`)
