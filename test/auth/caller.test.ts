import { expect, it } from 'vitest'
import { reachOf, requireInstance, requirePermission } from '../../src/auth/caller.ts'
import type { Reach } from '../../src/auth/caller.ts'
import type { Permission } from '../../src/model.ts'
import { callerWith } from './bench.ts'

const grants = new Map<Permission, Reach>([['session.read', 'instance'], ['receiver.read', new Set(['o1'])]])
const caller = callerWith({ grants })
const denied = expect.objectContaining({ kind: 'permission_denied' }) as Error

it('a permission holds for the instance, for organizations, or nowhere', () => {
  expect(reachOf(caller, 'session.read')).toBe('instance')
  expect(requirePermission(caller, 'receiver.read')).toEqual(new Set(['o1']))
  expect(reachOf(caller, 'session.write')).toBeNull()
  expect(() => requirePermission(caller, 'session.write')).toThrow(denied)
})

it('organizations are not the instance', () => {
  expect(() => requireInstance(caller, 'session.read')).not.toThrow()
  expect(() => requireInstance(caller, 'receiver.read')).toThrow(denied)
  expect(() => requireInstance(caller, 'session.write')).toThrow(denied)
})
