/**
 * Where the demo may listen: loopback, on four ports that must be free. Said in a sentence before anything is started.
 */
import { createServer } from 'node:net'

/** The demo cannot or must not start as asked; the message says why and what to do. */
export class StartRefused extends Error {}

export interface StartPorts {
  readonly api: number
  readonly issuer: number
  readonly relyingParty: number
  readonly ops: number
}

const DEFAULT_PORT = 8080
const DEFAULT_OPS_PORT = 9090

/** @throws StartRefused */
export const readStartOptions = async (environment: NodeJS.ProcessEnv) => {
  if (environment['NODE_ENV'] === 'production') {
    throw new StartRefused('npm start is for trying Curfew out and does not run with NODE_ENV=production. To run it for good: npx curfew serve, see the README.')
  }
  const host = environment['HOST'] || '127.0.0.1'
  if (!/^(127\.\d+\.\d+\.\d+|::1|localhost)$/.test(host)) {
    throw new StartRefused(`npm start listens on loopback only, and HOST is ${host}. To serve others: npx curfew serve, see the README.`)
  }
  const ports = readPorts(environment)
  for (const port of Object.values(ports)) await assertFree(port, host)
  return { host, ports, environment }
}

const readPorts = (environment: NodeJS.ProcessEnv): StartPorts => {
  const text = environment['PORT'] || String(DEFAULT_PORT)
  const api = Number(text)
  // Three more follow it.
  if (!Number.isInteger(api) || api < 1 || api > 65_532) throw new StartRefused('PORT must be a number from 1 to 65532.')
  const ops = environment['OPS_PORT'] || (environment['PORT'] ? api + 3 : DEFAULT_OPS_PORT)
  return { api, issuer: api + 1, relyingParty: api + 2, ops: Number(ops) }
}

const assertFree = (port: number, host: string): Promise<void> =>
  new Promise((resolve, reject) => {
    const probe = createServer()
    probe.once('error', (cause: NodeJS.ErrnoException) => {
      const why = cause.code === 'EADDRINUSE' ? 'is taken' : `cannot be used (${cause.code ?? cause.message})`
      reject(new StartRefused(`Port ${port} of ${host} ${why}. Choose others, four in a row: PORT=9000 npm start`, { cause }))
    })
    probe.listen(port, host, () => probe.close(() => resolve()))
  })
