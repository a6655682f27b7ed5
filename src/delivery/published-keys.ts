/**
 * The keys that an issuer publishes, as its relying parties find them: from the URI that the operator configured, else by
 * OpenID Connect Discovery 1.0 through the door, because a document from elsewhere may name any address.
 */
import type { JWK } from 'jose'
import type { Door } from './http.ts'

/** The keys, or in words why they are not known. */
export type PublishedKeys = { readonly keys: readonly JWK[] } | { readonly unreadable: string }

export type ReadPublishedKeys = (issuer: string) => Promise<PublishedKeys>

/** Could not be read, for a reason that may be shown. */
class Unreadable extends Error {}

/**
 * @param configured JWKS URIs by issuer. @param fetchJson reads a configured one, whatever its address.
 * @param door reads what was discovered.
 */
export const createReadPublishedKeys = (deps: {
  configured: ReadonlyMap<string, string>
  fetchJson: (uri: string) => Promise<unknown>
  door: Pick<Door, 'send'>
}): ReadPublishedKeys => {
  const { configured, fetchJson, door } = deps

  const get = async (url: string): Promise<unknown> => {
    const answer = await door.send({ url, method: 'GET', headers: { accept: 'application/json' }, body: '' })
    if ('silence' in answer) throw new Unreadable(answer.silence)
    if (answer.status !== 200) throw new Unreadable(`it answered ${answer.status}`)
    try {
      return JSON.parse(answer.body)
    } catch (cause) {
      throw new Unreadable('it is not JSON', { cause })
    }
  }

  const discover = async (issuer: string): Promise<string> => {
    const document = fieldsOf(await get(`${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`))
    if (document['issuer'] !== issuer) throw new Unreadable('its discovery document names another issuer')
    const { jwks_uri: uri } = document
    if (typeof uri !== 'string' || !URL.canParse(uri)) throw new Unreadable('its discovery document names no jwks_uri')
    return uri
  }

  const getConfigured = (uri: string): Promise<unknown> =>
    fetchJson(uri).catch((cause: unknown) => { throw new Unreadable('its configured jwksUri could not be read', { cause }) })

  return async (issuer) => {
    try {
      const uri = configured.get(issuer)
      const { keys } = fieldsOf(uri === undefined ? await get(await discover(issuer)) : await getConfigured(uri))
      if (!Array.isArray(keys)) throw new Unreadable('it is not a JWK Set')
      return { keys: keys.filter((key): key is JWK => typeof key === 'object' && key !== null) }
    } catch (error) {
      if (error instanceof Unreadable) return { unreadable: error.message }
      throw error
    }
  }
}

const fieldsOf = (document: unknown): Record<string, unknown> =>
  typeof document === 'object' && document !== null ? (document as Record<string, unknown>) : {}
