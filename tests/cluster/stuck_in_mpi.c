/* Preloaded into `topomoe run`: MPI_Test and MPI_Testall stop coming back after STUCK_AFTER calls, as Open MPI's own abort
   may not in a survivor; with STUCK_DEAF the thread takes no signals either. */
#include <mpi.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static void may_be_stuck(void) {
  static long calls = 0;
  const char* after = getenv("STUCK_AFTER");
  if (after == NULL || ++calls <= atol(after)) return;
  if (getenv("STUCK_DEAF") != NULL) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
  }
  for (;;) pause();
}

int MPI_Test(MPI_Request* request, int* flag, MPI_Status* status) {
  may_be_stuck();
  return PMPI_Test(request, flag, status);
}

int MPI_Testall(int count, MPI_Request requests[], int* flag, MPI_Status statuses[]) {
  may_be_stuck();
  return PMPI_Testall(count, requests, flag, statuses);
}
