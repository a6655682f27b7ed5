/** What claims grant: never more than the entry allows, whatever shape they take. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { readGrants } from '../../src/auth/grants.ts'
import { createTrustedIssuer } from '../../src/auth/trusted-issuer.ts'
import type { IssuerEntry } from '../../src/config.ts'
import { permissions } from '../../src/model.ts'

const entryWith = (overrides: Partial<IssuerEntry> = {}): IssuerEntry => ({
  issuer: 'https://issuer.example',
  audience: 'curfew',
  algorithms: ['ES256'],
  tokenTypes: ['at+jwt'],
  permissionClaims: ['permissions'],
  roles: {},
  instance: false,
  ...overrides,
})

const grantsOf = (claims: unknown, overrides: Partial<IssuerEntry>) =>
  Object.fromEntries(
    [...readGrants(claims as Record<string, unknown>, createTrustedIssuer(entryWith(overrides)))].map(([permission, reach]) => [
      permission,
      reach === 'instance' ? reach : [...reach].toSorted(),
    ]),
  )

const zitadelRoles = 'urn:zitadel:iam:org:project:42:roles'

describe('permissions', () => {
  it('come from an array or from words between spaces', () => {
    expect(grantsOf({ permissions: ['session.delete', 'session.read'] }, { instance: true })).toEqual({ 'session.delete': 'instance', 'session.read': 'instance' })
    expect(grantsOf({ permissions: ' session.delete  session.read' }, { instance: true })).toEqual({ 'session.delete': 'instance', 'session.read': 'instance' })
  })

  it('come from scope only where the entry says so', () => {
    expect(grantsOf({ scope: 'session.delete' }, { instance: true })).toEqual({})
    expect(grantsOf({ scope: 'openid session.delete' }, { instance: true, permissionClaims: ['scope'] })).toEqual({ 'session.delete': 'instance' })
  })

  it('are the seven words and nothing else', () => {
    const almost = ['session.*', '*', 'session', 'SESSION.DELETE', 'session.delete ', 'session.delete session.read', 'toString', '__proto__', 'session.link', '']
    expect(grantsOf({ permissions: almost }, { instance: true })).toEqual({})
  })

  it('are not granted by claims of wrong types', () => {
    for (const value of [true, 1, null, {}, { 'session.delete': true }, [['session.delete']], [{ name: 'session.delete' }], [null, 7]]) {
      expect(grantsOf({ permissions: value }, { instance: true })).toEqual({})
    }
  })

  it('are read only from the token itself, not from what every object has', () => {
    const claims = Object.create({ permissions: ['session.delete'] }) as Record<string, unknown>
    expect(grantsOf(claims, { instance: true })).toEqual({})
    expect(grantsOf(JSON.parse('{"__proto__":{"permissions":["session.delete"]}}'), { instance: true })).toEqual({})
    expect(grantsOf({}, { instance: true, permissionClaims: ['constructor', '__proto__', 'toString'] })).toEqual({})
  })
})

describe('where they hold', () => {
  it('is nowhere for a token that names no organization, unless the entry has the instance', () => {
    expect(grantsOf({ permissions: ['session.delete'] }, {})).toEqual({})
    expect(grantsOf({ permissions: ['session.delete'] }, { instance: true })).toEqual({ 'session.delete': 'instance' })
  })

  it('is the organizations that the token names, one or many, also where the entry has the instance', () => {
    for (const instance of [true, false]) {
      const entry = { instance, organizationClaim: 'org' }
      expect(grantsOf({ permissions: ['session.delete'], org: 'o1' }, entry)).toEqual({ 'session.delete': ['o1'] })
      expect(grantsOf({ permissions: ['session.delete'], org: ['o1', 'o2'] }, entry)).toEqual({ 'session.delete': ['o1', 'o2'] })
    }
  })

  it('is limited to the organizations of the entry', () => {
    const entry = { organizationClaim: 'org', organizations: ['o1'] }
    expect(grantsOf({ permissions: ['session.delete'], org: ['o1', 'o2'] }, entry)).toEqual({ 'session.delete': ['o1'] })
    expect(grantsOf({ permissions: ['session.delete'], org: 'o2' }, entry)).toEqual({})
  })

  it('is nowhere for organizations named in a way that cannot be read', () => {
    const entry = { organizationClaim: 'org', instance: true }
    for (const org of ['', [], {}, null, 7, true, [7], [''], { id: 'o1' }]) {
      expect(grantsOf({ permissions: ['session.delete'], org }, entry), JSON.stringify(org)).toEqual({})
    }
  })
})

describe('roles', () => {
  const roles = { boss: ['session.delete', 'session.read'], viewer: ['session.read'] } satisfies IssuerEntry['roles']

  it('mean only what the operator says', () => {
    const entry = { roleClaim: 'roles', roles, instance: true }
    expect(grantsOf({ roles: ['viewer', 'session.delete', 'admin'] }, entry)).toEqual({ 'session.read': 'instance' })
    expect(grantsOf({ roles: 'boss' }, entry)).toEqual({ 'session.delete': 'instance', 'session.read': 'instance' })
    expect(grantsOf({ roles: 'boss viewer' }, entry)).toEqual({})
    expect(grantsOf({ roles: ['boss'] }, { roles, instance: true })).toEqual({})
  })

  it('hold in their own organizations as ZITADEL writes them, each role in its own', () => {
    const claims = { [zitadelRoles]: { boss: { o1: 'one.example' }, viewer: { o2: 'two.example', o3: 'three.example' } } }
    const entry = { roleClaim: zitadelRoles, roles, instance: true }
    expect(grantsOf(claims, entry)).toEqual({ 'session.delete': ['o1'], 'session.read': ['o1', 'o2', 'o3'] })
    expect(grantsOf(claims, { ...entry, organizations: ['o1', 'o3'] })).toEqual({ 'session.delete': ['o1'], 'session.read': ['o1', 'o3'] })
  })

  it('of ZITADEL keep a token from the instance, for its other permissions too', () => {
    const entry = { roleClaim: zitadelRoles, roles, instance: true }
    expect(grantsOf({ permissions: ['session.write'], [zitadelRoles]: { viewer: { o1: 'x' } } }, entry)).toEqual({ 'session.read': ['o1'] })
    expect(grantsOf({ permissions: ['session.write'], [zitadelRoles]: {} }, entry)).toEqual({})
  })

  it('grant nothing by names that every object knows, or in shapes that are none', () => {
    const entry = { roleClaim: 'roles', roles, instance: true }
    for (const name of ['__proto__', 'constructor', 'toString', 'hasOwnProperty', 'valueOf']) {
      expect(grantsOf({ roles: [name] }, entry)).toEqual({})
      expect(grantsOf(JSON.parse(`{"roles":{"${name}":{"o1":"x"}}}`), entry)).toEqual({})
    }
    for (const value of [true, 7, null, [['boss']], [{ boss: 1 }], { boss: 'o1' }, { boss: ['o1'] }, { boss: true }, { boss: null }, { boss: {} }, { boss: { '': 'x' } }]) {
      expect(grantsOf({ roles: value }, entry), JSON.stringify(value)).toEqual({})
    }
  })
})

describe('G6: whatever the claims', () => {
  const organization = fc.constantFrom('o1', 'o2', 'o3', '__proto__', '')
  const word = fc.oneof(fc.constantFrom<string>(...permissions), fc.constantFrom('boss', 'viewer', '__proto__', 'constructor'), fc.string())
  const anyClaim = fc.oneof(
    fc.array(word),
    word,
    fc.dictionary(fc.oneof(word, organization), fc.oneof(fc.dictionary(organization, fc.string()), fc.jsonValue())),
    fc.array(organization),
    organization,
    fc.jsonValue(),
  )
  const claims = fc.record({ permissions: anyClaim, scope: anyClaim, roles: anyClaim, org: anyClaim }, { requiredKeys: [] }).map((some) => JSON.parse(JSON.stringify(some)) as typeof some)
  const role = fc.uniqueArray(fc.constantFrom(...permissions), { maxLength: 3 })
  const entry = fc
    .record({
      permissionClaims: fc.subarray(['permissions', 'scope']),
      roleClaim: fc.option(fc.constant('roles'), { nil: undefined }),
      roles: fc.record({ boss: role, viewer: role }, { requiredKeys: [] }),
      organizationClaim: fc.option(fc.constant('org'), { nil: undefined }),
      organizations: fc.option(fc.subarray(['o1', 'o2'], { minLength: 1 }), { nil: undefined }),
      instance: fc.boolean(),
    })
    .map((some) => entryWith(some as Partial<IssuerEntry>))

  const words = (value: unknown): unknown[] => (typeof value === 'string' ? value.split(' ') : Array.isArray(value) ? value : [])

  it('a caller gets no permission that neither its claims nor its mapped roles name', () => {
    fc.assert(
      fc.property(claims, entry, (some, given) => {
        const named = new Set<unknown>(given.permissionClaims.flatMap((name) => words(some[name as keyof typeof some])))
        const held = some.roles
        const roleNames = given.roleClaim === undefined ? [] : typeof held === 'string' ? [held] : Array.isArray(held) ? held : typeof held === 'object' && held !== null ? Object.keys(held) : []
        for (const name of roleNames) {
          if (name === 'boss' || name === 'viewer') for (const permission of given.roles[name] ?? []) named.add(permission)
        }
        for (const permission of readGrants(some, createTrustedIssuer(given)).keys()) {
          expect(permissions).toContain(permission)
          expect(named).toContain(permission)
        }
      }),
      { numRuns: 2_000 },
    )
  })

  it('a caller gets the instance only from an entry that has it, with a token that names no organization', () => {
    fc.assert(
      fc.property(claims, entry, (some, given) => {
        for (const reach of readGrants(some, createTrustedIssuer(given)).values()) {
          if (reach !== 'instance') continue
          expect(given.instance).toBe(true)
          if (given.organizationClaim !== undefined) expect(some.org).toBeUndefined()
        }
      }),
      { numRuns: 2_000 },
    )
  })

  it('a caller gets no organization beyond the entry\'s, or that the token does not name, and never an empty reach', () => {
    fc.assert(
      fc.property(claims, entry, (some, given) => {
        const mentioned = JSON.stringify([some.org, some.roles])
        for (const reach of readGrants(some, createTrustedIssuer(given)).values()) {
          if (reach === 'instance') continue
          expect(reach.size).toBeGreaterThan(0)
          for (const one of reach) {
            expect(one).not.toBe('')
            if (given.organizations !== undefined) expect(given.organizations).toContain(one)
            expect(mentioned).toContain(JSON.stringify(one))
          }
        }
      }),
      { numRuns: 2_000 },
    )
  })
})
