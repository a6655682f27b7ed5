/**
 * Paths with a verb behind an id (`/v1/receivers/{id}:verify`), as the router takes them: the id's parameter needs an
 * expression that ends it before the colon. Ids that stand before a verb hold no colon.
 */

/** @param before the path up to the id, e.g. `/v1/receivers/`. */
export const verbPath = (before: string, verb: string): string => `${before}:id(^[^/:]+)::${verb}`

/** A router's pattern without the expressions of its parameters: as people write it. */
export const withoutExpressions = (pattern: string): string => pattern.replace(/:(\w+)\([^)]*\)/g, ':$1')
