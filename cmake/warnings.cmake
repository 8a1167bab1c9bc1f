# SPDX-License-Identifier: GPL-2.0-or-later
# Compilers for which the tree is kept free of warnings, by id and major version: those of Debian 12 and 13. Any other
# warns of other things, and its warnings do not stop a build.
set(UMBRA_MENDED_COMPILERS "GNU 12" "GNU 14")

# Sets `result` to whether a warning of this compiler is a fault of the tree.
function(umbra_is_mended_for result id version)
    string(REGEX MATCH "^[0-9]+" major "${version}")
    if("${id} ${major}" IN_LIST UMBRA_MENDED_COMPILERS)
        set(${result} TRUE PARENT_SCOPE)
    else()
        set(${result} FALSE PARENT_SCOPE)
    endif()
endfunction()
