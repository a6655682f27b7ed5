/** The issuer of the run's sessions and bearer tokens: a JWKS over HTTP, and tokens that may end every session. */
import { createServer } from 'node:http'
import { SignJWT, exportJWK, generateKeyPair } from 'jose'

/** As many service accounts as take turns. */
export const TOKENS = 200

/** @typedef {Awaited<ReturnType<typeof startIssuer>>} TokenIssuer */

export const startIssuer = async () => {
  const { publicKey, privateKey } = await generateKeyPair('RS256')
  const keys = JSON.stringify({ keys: [{ ...(await exportJWK(publicKey)), kid: 'bench', alg: 'RS256', use: 'sig' }] })
  const server = createServer((_request, response) => void response.setHeader('content-type', 'application/json').end(keys))
  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)))
  const address = server.address()
  if (typeof address !== 'object' || address === null) throw new Error('The issuer does not listen')
  const url = `http://127.0.0.1:${address.port}`
  const sign = (/** @type {number | string} */ n, permissions = ['session.delete']) =>
    new SignJWT({ permissions })
      .setProtectedHeader({ alg: 'RS256', kid: 'bench', typ: 'at+jwt' })
      .setIssuer(url).setAudience('curfew').setSubject(`service-${n}`).setIssuedAt().setExpirationTime('6h')
      .sign(privateKey)
  return {
    url,
    /** For the setting `ISSUERS`. */
    entries: JSON.stringify([{ issuer: url, audience: 'curfew', jwksUri: `${url}/keys`, instance: true }]),
    tokens: await Promise.all(Array.from({ length: TOKENS }, (_, n) => sign(n))),
    /** For guards. */
    readerToken: await sign('guard', ['session.read']),
    /** For revocations. */
    responderToken: await sign('responder', ['revocation.read', 'revocation.write']),
    stop: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
