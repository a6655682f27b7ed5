/**
 * protojson reads a field by its lowerCamelCase name and by its name in the .proto (`sorting_column`). Clients of
 * ZITADEL use both, so what they send is brought to the first form before it is judged.
 */

/** Bodies are at most this deep anywhere in our API; deeper ones are left as they are, for the schema to refuse. */
const MAX_DEPTH = 8

const camel = (name: string): string => name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase())

/**
 * A preValidation hook: brings the names of a body to lowerCamelCase; no body is an empty object. It runs before the
 * schema judges, so what it leaves is still unknown.
 */
export const readBodyNames = async (request: { body: unknown }): Promise<void> => {
  request.body = request.body === undefined ? {} : protojsonNames(request.body)
}

/** The same for the query string. */
export const readQueryNames = async (request: { query: unknown }): Promise<void> => {
  request.query = protojsonNames(request.query)
}

/** A copy with every name in lowerCamelCase; where both forms of one name are there, the camelCase one stays. */
const protojsonNames = (value: unknown, depth = 0): unknown => {
  if (depth > MAX_DEPTH || typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map((item) => protojsonNames(item, depth + 1))
  // fromEntries defines and never assigns, so that "__proto__" is a name like any other.
  return Object.fromEntries(
    Object.entries(value)
      .map(([sent, inner]) => ({ sent, name: camel(sent), inner }))
      .filter(({ sent, name }) => sent === name || !Object.hasOwn(value, name))
      .map(({ name, inner }) => [name, protojsonNames(inner, depth + 1)]),
  )
}
