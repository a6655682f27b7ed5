/** What a report cannot say, in sentences: nobody should read more out of it than there is. */
import { MOST_FAILURES } from '../store/revocation-report.ts'
import type { Revocation } from '../store/revocations.ts'

export const limitsOf = (revocation: Revocation, { final, remainingExact }: { final: boolean; remainingExact: boolean }): string[] => [
  ...(final ? [] : ['It is not final: sessions are still to be ended, or receivers to be told.']),
  ...(revocation.state === 'cancelled' ? ['It was cancelled: what had ended stays ended, the rest lives.'] : []),
  ...(remainingExact ? [] : [uncounted(revocation)]),
  ...(revocation.containment === 'rules' ? [] : ['No cutoff rule stood in for it: each session lived until it was ended itself.']),
  ...(Number(revocation.deliveries.failed) > MOST_FAILURES ? [`Why deliveries failed is counted of ${MOST_FAILURES} of them.`] : []),
  'An acknowledgement is the receiver’s own word.',
  'Curfew holds no grants. Back-channel logout says that a session ended, and revokes neither refresh tokens nor offline access.',
  'Where a resource server asks neither a guard nor introspection, an access token goes on until it expires.',
  'Attempts are counted by whoever asks Curfew or a guard: they are a lower bound.',
]

const uncounted = ({ state, committed }: Revocation): string =>
  'What remains was not counted to its end: it is at least so many.'
  + (state === 'done' ? ` That none was left is what the last pass over all of them found at ${committed}; this count cannot say so again.` : '')
