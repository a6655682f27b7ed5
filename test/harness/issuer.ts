/**
 * A real OpenID issuer over HTTP on a free loopback port: discovery, JWKS, introspection (RFC 7662), and tokens
 * signed with its own RS256 and ES256 keys. Its JWKS and introspection can be made to misbehave.
 *
 * The entry it describes trusts it for the whole instance (`instance: true`), audience `curfew`; a token without
 * further claims is valid and holds no permission.
 */
import { randomBytes } from 'node:crypto'
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { SignJWT, calculateJwkThumbprint, exportJWK, generateKeyPair } from 'jose'
import type { CryptoKey, JWK } from 'jose'
import type { IssuerEntry } from '../../src/config.ts'

/** How an endpoint answers. `many`: 21 keys. `huge`: 5 MB. `oct`: a symmetric key beside the good ones. */
export type EndpointMode = 'ok' | 'fail' | 'redirect' | 'html' | 'huge' | 'duplicate' | 'oct' | 'empty' | 'many' | 'hang'

type SigningAlgorithm = 'RS256' | 'ES256' | 'PS256' | 'EdDSA'

interface IssuerKey {
  readonly kid: string
  readonly privateKey: CryptoKey
  readonly jwk: JWK
}

export interface TestIssuer {
  /** The `iss`. */
  readonly url: string
  readonly jwksUri: string
  readonly introspectionEndpoint: string
  /** Requests that reached the JWKS, the discovery document and the introspection endpoint so far. */
  readonly jwksFetches: number
  readonly discoveryFetches: number
  readonly introspections: number
  /** What introspection was last sent: `Authorization` and the form body. */
  readonly lastIntrospection: { authorization: string | undefined; body: string } | null
  /** An entry for `ISSUERS`, complete with defaults; also fit for `JSON.stringify`. */
  entry(overrides?: Partial<IssuerEntry>): IssuerEntry
  /** An entry that introspects and has no key material of its own. */
  introspectionEntry(overrides?: Partial<IssuerEntry>): IssuerEntry
  /** A signed access token. A claim given as undefined is left out. The header's `alg` picks the key. */
  token(claims?: Record<string, unknown>, header?: Record<string, unknown>): Promise<string>
  /** A new opaque token for which introspection answers these claims (`active: true` unless given). */
  opaque(claims?: Record<string, unknown>): string
  /** Makes introspection answer `{active: false}` for a token from now on. */
  revoke(token: string): void
  setJwksMode(mode: EndpointMode): void
  setDiscoveryMode(mode: EndpointMode): void
  setIntrospectionMode(mode: EndpointMode): void
  /** Replaces the key of one algorithm; the old one is published on unless `keepOld` is false. */
  rotate(alg?: SigningAlgorithm, options?: { keepOld?: boolean }): Promise<void>
  /** Publishes one more key, as it is. */
  addPublicKey(jwk: JWK): void
  /** The public and private key that signs this algorithm now, for hand-made tokens. */
  key(alg?: SigningAlgorithm): IssuerKey
  close(): Promise<void>
}

const makeKey = async (alg: string): Promise<IssuerKey> => {
  const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true })
  const jwk = await exportJWK(publicKey)
  const kid = await calculateJwkThumbprint(jwk)
  return { kid, privateKey, jwk: { ...jwk, kid, alg, use: 'sig' } }
}

const sendJson = (response: ServerResponse, value: unknown): void => {
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(value))
}

/** Answers as the mode says; true where `ok` remains to be done. */
const misbehave = (mode: EndpointMode, response: ServerResponse, elsewhere: string): boolean => {
  switch (mode) {
    case 'hang':
      return true
    case 'fail':
      response.writeHead(503).end('down')
      return true
    case 'redirect':
      response.writeHead(302, { location: elsewhere }).end()
      return true
    case 'html':
      response.writeHead(200, { 'content-type': 'text/html' }).end('<html>maintenance</html>')
      return true
    case 'huge':
      response.on('error', () => {})
      response.writeHead(200, { 'content-type': 'application/json' }).end(`{"keys":[],"pad":"${'x'.repeat(5_000_000)}"}`)
      return true
    default:
      return false
  }
}

const readBody = async (request: IncomingMessage): Promise<string> => {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString('utf8')
}

/** Starts an issuer with one key for each algorithm (default RS256 and ES256). Close it after use. */
export const startIssuer = async (
  options: { algorithms?: readonly SigningAlgorithm[]; port?: number } = {},
): Promise<TestIssuer> => {
  const current = new Map<string, IssuerKey>()
  for (const alg of options.algorithms ?? ['RS256', 'ES256']) current.set(alg, await makeKey(alg))
  const further: JWK[] = []
  const opaqueTokens = new Map<string, Record<string, unknown>>()
  const modes: Record<'jwks' | 'discovery' | 'introspection', EndpointMode> = { jwks: 'ok', discovery: 'ok', introspection: 'ok' }
  const counts = { jwks: 0, discovery: 0, introspection: 0 }
  let lastIntrospection: TestIssuer['lastIntrospection'] = null

  const publishedKeys = (): JWK[] => {
    const keys = [...[...current.values()].map(({ jwk }) => jwk), ...further]
    const [first] = keys
    switch (modes.jwks) {
      case 'empty':
        return []
      case 'duplicate':
        return first === undefined ? keys : [...keys, first]
      case 'oct':
        return [...keys, { kty: 'oct', kid: 'symmetric', alg: 'HS256', k: randomBytes(32).toString('base64url') }]
      case 'many':
        return Array.from({ length: 21 }, (_, index) => ({ ...first, kid: `key-${index}` }))
      default:
        return keys
    }
  }

  const introspect = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    counts.introspection += 1
    const body = await readBody(request)
    lastIntrospection = { authorization: request.headers.authorization, body }
    if (misbehave(modes.introspection, response, `${url}/elsewhere`)) return
    const claims = opaqueTokens.get(new URLSearchParams(body).get('token') ?? '')
    sendJson(response, claims ?? { active: false })
  }

  const server = createServer((request, response) => {
    const path = (request.url ?? '').split('?')[0]
    if (path === '/.well-known/openid-configuration') {
      counts.discovery += 1
      if (misbehave(modes.discovery, response, `${url}/elsewhere`)) return
      sendJson(response, { issuer: url, jwks_uri: `${url}/keys`, introspection_endpoint: `${url}/introspect` })
    } else if (path === '/keys') {
      counts.jwks += 1
      if (!misbehave(modes.jwks, response, `${url}/elsewhere`)) sendJson(response, { keys: publishedKeys() })
    } else if (path === '/elsewhere') {
      // Where a redirect leads: a good answer, so that a follower is found out.
      sendJson(response, { keys: publishedKeys(), active: true, issuer: url, jwks_uri: `${url}/keys` })
    } else if (path === '/introspect' && request.method === 'POST') {
      introspect(request, response).catch(() => response.destroy())
    } else {
      response.writeHead(404).end()
    }
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(options.port ?? 0, '127.0.0.1', resolve)
  })
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`

  const keyOf = (alg: string): IssuerKey => {
    const key = current.get(alg)
    if (key === undefined) throw new Error(`This issuer has no ${alg} key`)
    return key
  }
  const nowSeconds = () => Math.floor(Date.now() / 1_000)
  const baseClaims = () => ({ iss: url, aud: 'curfew', sub: 'user-1', iat: nowSeconds(), exp: nowSeconds() + 300 })
  const firstAlgorithm = [...current.keys()][0] ?? 'RS256'

  const entry: TestIssuer['entry'] = (overrides = {}) => ({
    issuer: url,
    audience: 'curfew',
    jwksUri: `${url}/keys`,
    algorithms: ['RS256', 'PS256', 'ES256', 'EdDSA', 'Ed25519'],
    tokenTypes: ['at+jwt'],
    permissionClaims: ['permissions'],
    roles: {},
    instance: true,
    ...overrides,
  })

  return {
    url,
    jwksUri: `${url}/keys`,
    introspectionEndpoint: `${url}/introspect`,
    get jwksFetches() {
      return counts.jwks
    },
    get discoveryFetches() {
      return counts.discovery
    },
    get introspections() {
      return counts.introspection
    },
    get lastIntrospection() {
      return lastIntrospection
    },
    entry,
    introspectionEntry: (overrides = {}) => {
      const { jwksUri: _, ...rest } = entry()
      const introspection = { endpoint: `${url}/introspect`, clientId: 'curfew', clientSecret: 'introspection-secret' }
      return { ...rest, introspection, ...overrides }
    },
    token: (claims = {}, header = {}) => {
      const alg = typeof header['alg'] === 'string' ? header['alg'] : firstAlgorithm
      const { kid, privateKey } = keyOf(alg)
      // JSON drops what is undefined, so a claim or header can be left out by name.
      const payload = JSON.parse(JSON.stringify({ ...baseClaims(), ...claims })) as Record<string, unknown>
      const protectedHeader = JSON.parse(JSON.stringify({ alg, kid, typ: 'at+jwt', ...header })) as { alg: string }
      return new SignJWT(payload).setProtectedHeader(protectedHeader).sign(privateKey)
    },
    opaque: (claims = {}) => {
      const token = randomBytes(24).toString('base64url')
      opaqueTokens.set(token, { active: true, token_type: 'Bearer', ...baseClaims(), ...claims })
      return token
    },
    revoke: (token) => {
      opaqueTokens.delete(token)
    },
    setJwksMode: (mode) => {
      modes.jwks = mode
    },
    setDiscoveryMode: (mode) => {
      modes.discovery = mode
    },
    setIntrospectionMode: (mode) => {
      modes.introspection = mode
    },
    rotate: async (alg = 'RS256', { keepOld = true } = {}) => {
      const old = current.get(alg)
      if (old !== undefined && keepOld) further.push(old.jwk)
      current.set(alg, await makeKey(alg))
    },
    addPublicKey: (jwk) => {
      further.push(jwk)
    },
    key: (alg = 'RS256') => keyOf(alg),
    close: async () => {
      server.closeAllConnections()
      await new Promise<void>((resolve) => {
        server.close(() => resolve())
      })
    },
  }
}
