/** A statement put together of parts: each gives its values and gets their placeholders. */

/** Gives a value to the statement and returns its placeholder. */
export type Next = (value: unknown) => string

export const createStatement = (): { readonly values: unknown[]; readonly next: Next } => {
  const values: unknown[] = []
  return { values, next: (value) => `$${values.push(value)}` }
}
